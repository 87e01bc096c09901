"""The series with fake commands, for the tests of the commands as well."""

from tests.workflows.retraining.conftest import team

__all__ = ["team"]
