"""Summarises a run as a sentence and as JUnit XML, and reads the list of known failures."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from fedbbpt.conformance.case_files import CaseOfAKit
from fedbbpt.conformance.results import Outcome, Result
from fedbbpt.errors import InvalidInput


def summary(results: Sequence[Result]) -> str:
    """Returns a sentence such as "38 passed, 2 skipped, 1 failed: known"."""
    found = Counter(result.outcome for result in results)
    return ", ".join(f"{found[outcome]} {outcome}" for outcome in Outcome if found[outcome]) or "no cases"


def read_known_failing(path: Path, cases: Sequence[CaseOfAKit], kit: str) -> frozenset[str]:
    """Reads names of a kit's cases, one on each line, with comments after #. Raises InvalidInput if one is unknown."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            str(error), where=str(path), fix="a text file with the name of a case on each line"
        ) from None
    names, known = set(), {case.name for case in cases}
    for number, line in enumerate(lines, 1):
        name = line.partition("#")[0].strip()
        if name and name not in known:
            fix = f"a name that `fedbbpt conformance {kit} --list` prints"
            raise InvalidInput(f"there is no case {name!r}", where=f"{path}:{number}", fix=fix)
        names.add(name)
    return frozenset(names - {""})


def write_junit(results: Sequence[Result], path: Path, kit: str) -> None:
    """Writes JUnit XML of a kit's results, where known failures count as skipped and unexpected passes as failures."""
    suites = ElementTree.Element("testsuites")
    for profile in dict.fromkeys(result.case.profile for result in results):
        mine = [result for result in results if result.case.profile == profile]
        suite = ElementTree.SubElement(suites, "testsuite", name=f"fedbbpt.conformance.{kit}.{profile}")
        suite.set("tests", str(len(mine)))
        suite.set("failures", str(sum(not result.outcome.good for result in mine)))
        suite.set("skipped", str(sum(result.outcome in (Outcome.SKIPPED, Outcome.KNOWN) for result in mine)))
        suite.set("time", f"{sum(result.seconds for result in mine):.3f}")
        for result in mine:
            case = ElementTree.SubElement(suite, "testcase", classname=profile, name=result.case.name)
            case.set("time", f"{result.seconds:.3f}")
            if not result.outcome.good:
                message = result.detail or "the case passes, but is on the list of known failures"
                ElementTree.SubElement(case, "failure", message=message).text = result.case.claim
            elif result.outcome is not Outcome.PASSED:
                ElementTree.SubElement(case, "skipped", message=f"{result.outcome}: {result.detail}")
    ElementTree.indent(suites)
    path.write_bytes(ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True))
