"""The certificate as one self-contained HTML page, to be attached to a pull request."""

from typing import Any

from arspec._errors import SpecError
from arspec.port._bundle import Bundle
from arspec.port._certificate import LEVELS, Certificate
from arspec.port._source import Written

_WORST = 12  # findings shown per level; the JSON has all


def page(bundle: Bundle, written: Written, certificate: Certificate) -> str:
    """Return the page. Every text of the bundle is escaped."""
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError:
        raise SpecError("the page needs jinja2, not installed here. Try: pip install 'arspec[port]'") from None
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_TEMPLATE).render(**_content(bundle, written, certificate))


def _content(bundle: Bundle, written: Written, certificate: Certificate) -> dict[str, Any]:
    levels = [
        {"level": level, "title": LEVELS[level], "compared": count, "worst": _scientific(worst), "holds": holds}
        for level, (count, worst, holds) in certificate.levels().items()
    ]
    worst = {
        level: sorted((f for f in certificate.findings if f.level == level), key=lambda f: -f.error)[:_WORST]
        for level in LEVELS
    }
    parameters = sum(weight.size for weight in bundle.weights.values())
    return {
        "name": bundle.graph.name,
        "framework": written.framework,
        "holds": certificate.holds,
        "explanation": certificate.explain(),
        "tolerance": _scientific(certificate.tolerance),
        "levels": levels,
        "worst": {level: [(f.name, _scientific(f.error), f.holds) for f in found] for level, found in worst.items()},
        "titles": LEVELS,
        "faults": certificate.faults,
        "rules": [(site.key, layer, placement) for site, (layer, placement) in _sites(bundle, written)],
        "entries": [(e.source, e.target, _steps(e.steps), bundle.shapes[e.source]) for e in written.weights.entries],
        "derived": written.weights.derived,
        "invertible": written.weights.invertible,
        "notes": written.notes,
        "parameters": parameters,
        "source": certificate.source,
        "target": certificate.environment,
        "files": certificate.files,
    }


def _sites(bundle: Bundle, written: Written) -> Any:
    return zip(bundle.sites, written.sites, strict=True)


def _steps(steps: Any) -> str:
    return ", ".join(f"{name}{tuple(numbers)}" for name, numbers in steps) or "as it is"


def _scientific(number: float) -> str:
    return "0" if number == 0 else f"{number:.1e}"


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }} to {{ framework }}: certificate</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: .3rem .7rem .3rem 0;
  border-bottom: 1px solid #e4e7eb; vertical-align: top; } td.n, th.n { text-align: right; font-variant-numeric:
  tabular-nums; white-space: nowrap; } code, td.c { font: 13px/1.45 ui-monospace, monospace; word-break: break-word; }
.verdict { display: inline-block; padding: .15rem .7rem; border-radius: 1rem; color: #fff; font-weight: 600; }
.yes { color: #1a7f37; } .no { color: #c62828; font-weight: 600; } .verdict.yes { background: #1a7f37; color: #fff; }
.verdict.no { background: #c62828; color: #fff; } pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; }
details { margin: .4rem 0; } summary { cursor: pointer; } .quiet { color: #59636e; }
</style>
</head>
<body>
<h1>{{ name }} to {{ framework }}</h1>
<p><span class="verdict {{ 'yes' if holds else 'no' }}">{{ 'holds' if holds else 'does not hold' }}</span>
<span class="quiet">{{ '{:,}'.format(parameters) }} numbers in {{ entries | length }} weights,
{{ rules | length }} regularized places; errors are relative to the largest entry of each tensor, and may be
{{ tolerance }} at most.</span></p>
{% if not holds %}<pre>{{ explanation }}</pre>{% endif %}
<h2>Levels</h2>
<table><tr><th></th><th>compared</th><th class="n">how many</th><th class="n">worst error</th><th></th></tr>
{% for row in levels %}
<tr><td>{{ row.level }}</td><td>{{ row.title }}</td><td class="n">{{ row.compared }}</td>
<td class="n">{{ row.worst if row.level not in ('L0', 'L5') else ('bit-equal' if row.level == 'L0' and row.holds else
('all noticed' if row.holds else row.worst)) }}</td>
<td class="{{ 'yes' if row.holds else 'no' }}">{{ 'holds' if row.holds else 'differs' }}</td></tr>
{% endfor %}
</table>
{% for level, found in worst.items() if found and level != 'L0' %}
<details><summary>{{ level }} {{ titles[level] }}: the largest errors</summary>
<table>{% for name, error, ok in found %}
<tr><td class="c">{{ name }}</td><td class="n {{ '' if ok else 'no' }}">{{ error }}</td></tr>
{% endfor %}</table></details>
{% endfor %}
{% if faults %}
<h2>Planted faults</h2>
<p class="quiet">Mistakes that ports have, made on purpose. Each has to be noticed.</p>
<table><tr><th>fault (layer)</th><th>noticed as</th></tr>
{% for fault, how in faults.items() %}
<tr><td>{{ fault }}</td><td class="{{ 'c' if how else 'no' }}">{{ how or 'not noticed' }}</td></tr>
{% endfor %}</table>
{% endif %}
{% if rules %}
<h2>Regularization</h2>
<details {{ 'open' if rules | length <= 12 else '' }}><summary>{{ rules | length }} places</summary>
<table><tr><th>in the source</th><th>layer in the target</th><th>placement</th></tr>
{% for key, layer, placement in rules %}
<tr><td class="c">{{ key }}</td><td class="c">{{ layer }}</td><td>{{ placement }}</td></tr>
{% endfor %}</table></details>
{% endif %}
<h2>Weights</h2>
<p class="quiet">{{ 'Every entry has one place; the map can be read backwards.' if invertible else
'Some weights are summed in the target, so the map cannot be read backwards.' }}
{% for note in notes %}{{ note }} {% endfor %}</p>
<details><summary>{{ entries | length }} moves{{ ', %d constants' % (derived | length) if derived else '' }}</summary>
<table><tr><th>source</th><th>shape</th><th>target</th><th>how</th></tr>
{% for source_name, target_name, how, shape in entries %}
<tr><td class="c">{{ source_name }}</td><td class="c">{{ shape | join('×') }}</td><td class="c">{{ target_name }}</td>
<td class="c">{{ how }}</td></tr>
{% endfor %}
{% for target_name, number in derived.items() %}
<tr><td class="quiet">constant {{ number }}</td><td></td><td class="c">{{ target_name }}</td><td></td></tr>
{% endfor %}</table></details>
<h2>Made with</h2>
<table><tr><th></th><th>source</th><th>target</th></tr>
{% for key in source.keys() | list + (target.keys() | reject('in', source) | list) %}
<tr><td>{{ key }}</td><td>{{ source.get(key, '') }}</td><td>{{ target.get(key, '') }}</td></tr>
{% endfor %}</table>
<details><summary>SHA-256 of the bundle</summary><table>
{% for file, digest in files.items() %}<tr><td>{{ file }}</td><td class="c">{{ digest }}</td></tr>{% endfor %}
</table></details>
</body>
</html>
"""
