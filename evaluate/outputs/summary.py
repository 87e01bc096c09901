"""Results in short: Markdown for a pull request or a CI summary, JUnit XML for a dashboard."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from curate.report import page
from evaluate import evaluators
from evaluate.outputs import headline
from evaluate.outputs.glossary import shown, title
from evaluate.results import Results

_WHOLE = 4000  # signs of a sentence, or of advice with a command to copy


def markdown(found: Results) -> str:
    """Result, trend, costs, the gate and the metrics."""
    lines = [
        f"# {plain(found.run)}: {found.verdict.word.replace('_', ' ')}",
        "",
        *(
            f"- **{headline.PARTS[finding.part]}** ({headline.WORDS[finding.state]}): {plain(finding.text, _WHOLE)}"
            for finding in found.findings
        ),
        "",
        f"Next: {plain(found.verdict.advice, _WHOLE)}",
        "",
        f"Gate: **{found.gate}**",
        "",
        "| check | measured | rule | status |",
        "|---|---|---|---|",
    ]
    for check in found.checks:
        cells = (title(check.metric), check.measured, check.rule, check.status)
        lines.append("| " + " | ".join(map(plain, cells)) + " |")
    lines += ["", "| metric | value | on | pictures | groups |", "|---|---|---|---|---|"]
    for name in evaluators.descriptions():
        metric = found.metrics.get(name)
        if metric is not None:
            value = shown(name, metric)
            value += "" if metric.value is not None else f": {metric.reason}"
            cells = (title(name), value, metric.on, str(metric.n or ""), str(metric.groups or ""))
            lines.append("| " + " | ".join(map(plain, cells)) + " |")
    return "\n".join(lines) + "\n"


def plain(text: str, most: int = 400) -> str:
    """Text that Markdown shows unchanged, on one line and in one table cell, cut at ``most`` signs.

    An underscore within a word means nothing to Markdown, and without a backslash a command can be copied from the file.

    >>> plain("type optim.batch_size=4, _not_ *this*")
    'type optim.batch_size=4, \\\\_not\\\\_ \\\\*this\\\\*'
    """
    return re.sub(r"([\\`*\[\]<>|#]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", page.clean(text, most))


def junit(found: Results) -> str:
    """One test case for each check; undecided checks count as skipped, with the reason."""
    outcome = {"failed": "failure", "undecided": "skipped", "skipped": "skipped"}
    suite = ElementTree.Element(
        "testsuite",
        name=f"evaluate {page.clean(found.run)}",
        tests=str(len(found.checks)),
        failures=str(sum(check.status == "failed" for check in found.checks)),
        skipped=str(sum(check.status in ("undecided", "skipped") for check in found.checks)),
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("gate", found.gate), ("verdict", found.verdict.word)):
        ElementTree.SubElement(properties, "property", name=name, value=value)
    for check in found.checks:
        text = f"{check.measured}; rule: {check.rule}" + (f"; {check.why}" if check.why else "")
        case = ElementTree.SubElement(suite, "testcase", classname="gate", name=check.name)
        if check.status in outcome:
            ElementTree.SubElement(case, outcome[check.status], message=text)
        elif check.status == "warned":
            ElementTree.SubElement(case, "system-out").text = text
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
