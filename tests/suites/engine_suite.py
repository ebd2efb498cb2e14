"""What every engine must do, written against the ports alone.

A test file of an engine subclasses ``EngineSuite`` and gives it a fixture ``case``, an
``EngineCase``. The model is the pocket model, which every engine can run: its answers are known.
"""

from tests.suites.engine_answers import EngineAnswers
from tests.suites.engine_continuation import EngineContinuation
from tests.suites.engine_footprint import EngineFootprint
from tests.suites.engine_life import EngineLife
from tests.suites.engine_prefixes import EnginePrefixes
from tests.suites.engine_pulls import EngineWithoutPulls
from tests.suites.engine_structure import EngineStructure


class EngineSuite(
    EngineAnswers,
    EngineStructure,
    EngineLife,
    EnginePrefixes,
    EngineContinuation,
    EngineFootprint,
    EngineWithoutPulls,
):
    """The conformance suite. A subclass provides the fixture ``case``."""
