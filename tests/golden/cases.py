"""All golden cases."""

from __future__ import annotations

import cases_data
import cases_methods
import cases_models
import cases_published
import cases_run
from golden import Case

CASES: dict[str, Case] = {
    case.name: case
    for part in (cases_data, cases_models, cases_run, cases_published, cases_methods)
    for case in part.CASES
}
"""By name."""
