"""`arspec port` as it is typed: from a Keras model to a certificate, and what goes wrong on the way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = """
import keras

def build():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,), name="x")
    x = keras.layers.Dense(5, activation="gelu", kernel_regularizer="l2", activity_regularizer="l1", name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(x), name="small")
"""


def port(*arguments: str, folder: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "arspec.cli", "port", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("port")
    (made / "model.py").write_text(MODEL)
    port("export", "model.py:build", "-o", "small.bundle", folder=made)
    port("write", "small.bundle", "--to", "torch", "-o", "small.py", folder=made)
    return made


def test_a_certificate_holds_as_text_json_and_page(folder: Path) -> None:
    options = ("--html", "small.html", "-o", "small.json")
    done = port("check", "small.bundle", "--with", "small.py", *options, folder=folder)
    assert [line.split()[0] for line in done.stdout.splitlines()[1:7]] == ["L0", "L1", "L2", "L3", "L4", "L5"]
    assert done.stdout.endswith("Source and target agree.\n")
    certificate = json.loads((folder / "small.json").read_text())
    assert certificate["holds"]
    assert certificate["target"]["framework"] == "torch"
    page = (folder / "small.html").read_text()
    assert "GELU approximated by tanh" in page
    assert "http" not in page


def test_the_code_is_formatted_and_has_no_lint(folder: Path) -> None:
    command = [sys.executable, "-m", "ruff"]
    for options in (["check", "--isolated", "--select", "E,F,I,UP,C4,SIM"], ["format", "--isolated", "--check"]):
        done = subprocess.run(
            [*command, *options, "--line-length", "100", "small.py"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_an_edit_is_noticed_and_its_layer_named(folder: Path) -> None:
    for suffix in (".safetensors", ".map.json", ".spec.json"):
        (folder / f"edited{suffix}").write_bytes((folder / f"small{suffix}").read_bytes())
    (folder / "edited.py").write_text((folder / "small.py").read_text().replace("nn.GELU()", "nn.SiLU()"))
    done = port("check", "small.bundle", "--with", "edited.py", "--no-faults", "--json", folder=folder, code=1)
    document = json.loads(done.stdout)
    assert not document["holds"]
    assert document["divergence"].startswith("'hidden', off by")


def test_what_a_bundle_holds_is_printed(folder: Path) -> None:
    printed = port("inspect", "small.bundle", folder=folder).stdout
    assert "hidden  Dense  bias 5, kernel 6×5  5" in printed
    assert "rule: hidden/kernel/l2\nrule: hidden/output/l1\n" in printed
    document = json.loads(port("inspect", "small.bundle", "--json", folder=folder).stdout)
    assert document["weights"]["hidden/kernel"] == [6, 5]


def test_a_bundle_does_not_differ_from_itself(folder: Path) -> None:
    done = port("diff", "small.bundle", "small.bundle", folder=folder)
    assert done.stdout == "the bundles hold the same model\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "nothing"), "nothing is no bundle: it has no manifest.json."),
        (("write", "small.bundle", "--to", "mlx", "-o", "a.py"), "unknown framework 'mlx'; allowed: torch, nnx,"),
        (("write", "small.bundle", "--to", "torch", "-o", "small.py"), "small.py, small.safetensors"),
        (("write", "small.bundle", "--to", "torch", "-o", "small.txt"), "expected a name that ends with '.py'"),
        (("check", "small.bundle", "--with", "other.py"), "other.py is missing; `arspec port write` puts it"),
        (("check", "small.bundle", "--with", "small.py:Other"), "small.py has no 'Other'."),
        (("export", "model.py:build", "--from", "caffe", "-o", "b"), "unknown source 'caffe'; allowed: keras, torch."),
    ],
)
def test_a_mistake_is_one_line_and_code_2(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = port(*arguments, folder=folder, code=2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
