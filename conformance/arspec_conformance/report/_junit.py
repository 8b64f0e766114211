"""A report as JUnit XML, which CI services show."""

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

KINDS = {"FAIL": "failure", "WAIVED": "skipped", "UNSUPPORTED": "skipped", "NOTRUN": "skipped"}


def junit(document: Mapping[str, Any]) -> str:
    """Return one test suite per backend, one test case per clause, mode and dtype."""
    root = ElementTree.Element("testsuites", name="arspec conformance")
    for result in document["results"]:
        cells = result["cells"]
        counts = {
            "tests": len(cells),
            "failures": sum(cell["status"] == "FAIL" for cell in cells),
            "skipped": sum(KINDS.get(cell["status"]) == "skipped" for cell in cells),
            "errors": int(bool(result["error"] or result["not_run"])),
        }
        suite = ElementTree.SubElement(root, "testsuite", {"name": result["backend"], **_texts(counts)})
        for cell in cells:
            _case(suite, result["backend"], cell)
        if result["error"] or result["not_run"]:
            case = ElementTree.SubElement(suite, "testcase", name="process", classname=result["backend"])
            ElementTree.SubElement(case, "error", message=_clean(result["error"] or result["not_run"]))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, backend: str, cell: Mapping[str, Any]) -> None:
    name = f"{cell['clause']}[{cell['mode']}-{cell['dtype']}]"
    given = {"name": name, "classname": f"{backend}.{cell['tier']}", "time": f"{cell['seconds']:.4f}"}
    case = ElementTree.SubElement(suite, "testcase", given)
    if cell["status"] in KINDS:
        ElementTree.SubElement(case, KINDS[cell["status"]], message=_clean(f"{cell['status']}: {cell['message']}"))


def _texts(numbers: Mapping[str, int]) -> dict[str, str]:
    return {key: str(number) for key, number in numbers.items()}


def _clean(text: str) -> str:
    """Return text without the control characters that XML has no way to write."""
    return "".join(c if c in "\n\t" or c >= " " else "?" for c in text)
