"""``fedsense analyse``: everything that is measured about a finished run's global model, as one
JSON object.

Flatness is a property of a model under one loss. Figures of two runs compare only where recipe,
settings of the loss, imagery and options are the same; all of them are in the object.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from fedsense_core.data.batches.batch import Batch
from fedsense_core.device import chosen_device
from fedsense_core.errors import CheckpointError
from fedsense_core.evaluation.embedding import resize
from fedsense_core.models.pretraining import build_model
from fedsense_core.run_folder.folder import RunFolder
from fedsense_core.run_folder.snapshots import Snapshots
from fedsense_core.seeds import seed_of
from fedsense_core.ssl.recipe import build_recipe
from fedsense_core.tensors import TensorTable, vector_norm
from fedsense_core.tools.analysis.about import about_loss, about_run, config_of, models_of, notes_of, rounds_of
from fedsense_core.tools.analysis.analysis_options import AnalysisOptions
from fedsense_core.tools.analysis.cka import FEWEST_IMAGES, cka_matrix, gram
from fedsense_core.tools.analysis.curvature import extreme_eigenvalues
from fedsense_core.tools.analysis.fixed_loss import Objective, exact
from fedsense_core.tools.analysis.loss_imagery import batches_of, imagery_of
from fedsense_core.tools.analysis.loss_paths import barrier, evenly
from fedsense_core.tools.analysis.sharpness import noise_sharpness, sam_sharpness

FORMAT = 1
"""Of the object: raised when a key changes its meaning."""
MOST_IMAGES = 512
"""Images on which encoders are compared: their kernel is this number squared."""
USUAL = AnalysisOptions()
Progress = Callable[[int, int], None]
"""Is given the passes over all batches that are done, and how many there are at most."""


def analyse_run(
    folder: str | Path, options: AnalysisOptions = USUAL, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Measure the global model of a finished run; nothing is written. The same call gives the same
    metrics.

    Returns a JSON object with ``run``, ``settings``, ``notes``, ``loss``, ``hessian``, ``sam``,
    ``noise``, ``paths``, ``cka`` and ``rounds``; `docs/method.md` says what each is. Raises
    CheckpointError where the folder holds no run, an unfinished one, one without kept models, or
    one that diverged; SiteError where its imagery is gone; ConfigError for wrong options.
    """
    run = RunFolder.open(Path(folder))
    config = config_of(run)
    model = build_model(config)
    snapshots = Snapshots(models_of(run, config), TensorTable.of(model, config.model.local_parameters))
    imagery, own = imagery_of(config, run)
    per_client = options.batches if own else options.batches * max(1, len(snapshots))
    batches = batches_of(imagery, config, per_client, options.seed)
    model.to(chosen_device(options.device)).to(memory_format=torch.channels_last)
    objective = Objective(model, snapshots.table, build_recipe(config), batches, options.seed)
    return _Analysis(options, snapshots, objective, config.data.view_size).measure(progress) | {
        "run": about_run(config, run, snapshots),
        "settings": about_loss(config, batches, own, per_client) | asdict(options),
        "notes": notes_of(config, own),
        "rounds": rounds_of(run),
        "format": FORMAT,
    }


class _Analysis:
    """One analysis of one set of models under one loss."""

    def __init__(self, options: AnalysisOptions, snapshots: Snapshots, objective: Objective, view_size: int) -> None:
        self.options = options
        self.snapshots = snapshots
        self.objective = objective
        self.view_size = view_size
        self.w = snapshots.final()
        objective.teach(self.w)

    def measure(self, progress: Progress) -> dict[str, Any]:
        done, total = 0, self._passes()

        def on_pass() -> None:
            nonlocal done
            done += 1
            progress(min(done, total), total)

        self.objective.on_pass = on_pass
        by_client = self.objective.losses(self.w)
        at = self.objective.gradient(self.w)
        here = fmean(by_client.values())
        if not math.isfinite(here):
            raise CheckpointError(f"the loss of the global model is {here}: the run diverged, and nothing is measured.")
        measured = {
            "loss": {
                "value": here,
                "by_client": by_client,
                "at_start": self.objective.loss(self.snapshots.start()),
                "gradient_norm": vector_norm(at[1]),
                "weight_norm": vector_norm(self.w),
            },
            "hessian": self._hessian(),
            "sam": self._sam((here, at[1])),
            "noise": self._noise(here),
            "paths": self._paths(by_client),
            "cka": self._cka(),
        }
        progress(total, total)
        return measured

    def _passes(self) -> int:
        options = self.options
        noise = 2 * options.draws * len(options.noise)
        paths = (options.points - 1) * len(self.snapshots)
        return 3 + options.hessian_steps + options.ascents * len(options.radii) + noise + paths

    def _hessian(self) -> dict[str, Any]:
        options = self.options
        found = extreme_eigenvalues(
            lambda v: self.objective.curvature(self.w, v),
            torch.randn(self.w.shape, generator=self._generator("hessian")),
            tolerance=options.tolerance,
            steps=options.hessian_steps,
        )
        return {
            "largest": asdict(found.largest),
            "smallest": asdict(found.smallest),
            "dominant": found.dominant.value,
            "products": found.products,
        }

    def _sam(self, at: tuple[float, Tensor]) -> dict[str, Any]:
        options, size = self.options, vector_norm(self.w)
        radii = [radius if options.absolute else radius * size for radius in options.radii]
        rises = [
            sam_sharpness(self.objective.loss, self.objective.gradient, self.w, at, radius, options.ascents)
            for radius in radii
        ]
        return {"radius": radii, "relative_radius": [radius / size for radius in radii], "sharpness": rises}

    def _noise(self, here: float) -> dict[str, Any]:
        options, objective = self.options, self.objective
        found = [
            # The same directions at each size: what differs between sizes is the size alone.
            noise_sharpness(
                objective.loss, self.w, here, self.snapshots.table, sigma, options.draws, self._generator("noise")
            )
            for sigma in options.noise
        ]
        return {
            "sigma": list(options.noise),
            "sharpness": [one.mean for one in found],
            "standard_error": [one.standard_error for one in found],
        }

    def _paths(self, at_global: dict[str, float]) -> dict[str, Any]:
        """Return by client the loss on the way from the global model to its own, on all imagery and
        on its own."""
        alphas = evenly(self.options.points)
        paths: dict[str, dict[str, Any]] = {}
        for name, weights in self.snapshots.clients():
            step = weights - self.w
            seen = [at_global] + [self.objective.losses(self.w + a * step) for a in alphas[1:]]
            everywhere = [fmean(by_client.values()) for by_client in seen]
            own = [by_client[name] for by_client in seen] if name in at_global else None
            paths[name] = {
                "distance": vector_norm(step),
                "barrier": barrier(alphas, everywhere),
                "loss": everywhere,
                "barrier_own": barrier(alphas, own) if own else None,
                "loss_own": own,
            }
        barriers = [path["barrier"] for path in paths.values()]
        return {
            "alpha": alphas,
            "clients": paths,
            "mean_barrier": fmean(barriers) if barriers else None,
            "largest_barrier": max(barriers, default=None),
        }

    def _cka(self) -> dict[str, Any] | None:
        """Compare the encoders of all clients, and the global one before them, on the same images;
        None for none."""
        images = min(MOST_IMAGES, sum(map(len, self._batches())))
        if images < FEWEST_IMAGES or not len(self.snapshots):
            return None
        names, grams = ["global"], [gram(self._features(self.w))]
        for name, weights in self.snapshots.clients():
            names.append(name)
            grams.append(gram(self._features(weights)))
        matrix = cka_matrix(grams)
        pairs = [matrix[i][j] for i in range(1, len(names)) for j in range(1, i)]
        return {
            "estimator": "unbiased HSIC",
            "images": len(grams[0]),
            "names": names,
            "matrix": matrix,
            "mean_between_clients": fmean(pairs) if pairs else None,
            "mean_to_global": fmean(matrix[0][1:]),
        }

    @torch.no_grad()
    def _features(self, w: Tensor) -> Tensor:
        """Return the encoder's features (n, D) of about as many images of each batch, as they
        are."""
        model, batches = self.objective.model, self._batches()
        self.snapshots.table.write(w, model)
        most = max(2, MOST_IMAGES // len(batches))
        features = []
        with exact():
            for batch in batches:
                model.read_bands(batch.bands)
                views = resize(batch.pixels[:most].to(self.objective.device), self.view_size)
                features.append(model.embed(views).float().cpu())
        return torch.cat(features)

    def _batches(self) -> list[Batch]:
        return [batch for own in self.objective.batches.values() for batch in own]

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of("analysis", self.options.seed, purpose))
