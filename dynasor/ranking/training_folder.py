"""The folder of a ranker in the making: taken for one training, and no other."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynasor.errors import RunError
from dynasor.ranking.model_folder import CARD, TRAINING
from dynasor.run_folder import claim_folder


def claim_training(out: Path, run: Mapping[str, Any], *, fresh: bool) -> Path:
    """Take a folder for a training, or see that it holds the same one; returns where its state goes.

    Args:
        out: the folder.
        run: what the training is.
        fresh: throw an earlier training, finished or not, away.

    Raises:
        RunError: if the folder holds something else, or cannot be written.
    """
    state = out / TRAINING
    try:
        if out.exists() and not out.is_dir():
            raise RunError(f"{out} is a file; give a folder")
        holds_other = out.exists() and any(out.iterdir()) and not state.is_dir()
        if holds_other and not (fresh and (out / CARD).exists()):
            raise RunError(
                f"{out} holds a finished ranker or other files; choose another --out, "
                "or --fresh to train a finished ranker anew"
            )
        if fresh and state.is_dir():
            shutil.rmtree(state)
        state.mkdir(parents=True, exist_ok=True)
        claim_folder(state, run)
    except OSError as error:
        raise RunError(f"{out} cannot be written ({error.strerror}); check it") from None
    return state
