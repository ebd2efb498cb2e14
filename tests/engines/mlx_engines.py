"""MLX engines for tests: made with folders of their own, closed with proof that nothing is left."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

from autotuned.core.settings import MlxSettings, PathSettings
from autotuned.engines.mlx.engine import MlxEngine
from tests.engines.conftest import SystemClock
from tests.engines.mlx_paths import POCKET
from tests.engines.processes import descendants, until


@asynccontextmanager
async def mlx_engine(*folders, **settings):
    """An engine and its paths; the pocket model is there where no folders are named."""
    before = descendants()
    root = Path(tempfile.mkdtemp(prefix="at-"))
    paths = PathSettings(data=root / "data", runtime=root / "run", state=root / "state")
    for folder in (paths.data / "models", paths.runtime, paths.state):
        folder.mkdir(parents=True)
    engine = MlxEngine(
        paths=paths, settings=MlxSettings(**settings), clock=SystemClock(), folders=folders or (POCKET,)
    )
    yield engine, paths
    await engine.close()
    await until(lambda: descendants() <= before, "every process of the engine is gone")
    assert list(paths.runtime.iterdir()) == []
    shutil.rmtree(root)
