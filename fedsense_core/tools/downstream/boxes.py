"""Boxes around objects: checked, cut with their image, matched with detections, and scored.

A box is (left, top, right, bottom) in pixels from the top left corner of its image; right and
bottom lie outside.

Shapes: n objects, d detections of one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.detection import MeanAveragePrecision

from fedsense_core.errors import SiteError
from fedsense_core.tools.downstream.evidence import DetectionEvidence
from fedsense_core.tools.downstream.samples import Array, Boxes

Bools = NDArray[np.bool_]

MIN_VISIBLE = 0.3
"""An object of which a window shows less is neither learned from nor scored there."""
MOST_DETECTIONS = 300
"""Best detections of an image that count. COCO counts 100; windows of aerial imagery may hold more
objects."""
MOST_PIXELS = 1e7
"""Largest coordinate that is believed."""


@dataclass(frozen=True)
class Detections:
    """What a detector found in one image."""

    xyxy_d4: Array
    """Left, top, right, bottom in pixels, float32."""
    classes_d: Array
    """Positions in the task's classes, int64."""
    scores_d: Array
    """Float32, higher for surer ones."""

    def only(self, keep_d: Bools) -> Detections:
        """Return those for which ``keep_d`` is True."""
        return Detections(self.xyxy_d4[keep_d], self.classes_d[keep_d], self.scores_d[keep_d])


def boxes_of(rows: Sequence[tuple[Sequence[float], int, bool]]) -> Boxes:
    """Return the boxes of (left, top, right, bottom), class and difficulty, perhaps none."""
    return Boxes(
        np.array([corners for corners, _, _ in rows], np.float32).reshape(-1, 4),
        np.array([k for _, k, _ in rows], np.int64),
        np.array([difficult for _, _, difficult in rows], bool),
    )


def checked_box(corners: Sequence[float], where: str) -> tuple[float, float, float, float]:
    """Return (left, top, right, bottom). Raises SiteError, beginning with ``where``, unless finite
    and of some size."""
    left, top, right, bottom = corners
    if not all(abs(value) <= MOST_PIXELS for value in corners):  # false for NaN, too
        raise SiteError(f"{where}: a box needs four finite numbers of pixels, not {', '.join(map(str, corners))}.")
    if right <= left or bottom <= top:
        raise SiteError(
            f"{where}: a box must have a width and a height above 0, but this one goes from ({left:g}, {top:g}) to "
            f"({right:g}, {bottom:g}). Correct it or remove it."
        )
    return left, top, right, bottom


def within(boxes: Boxes, top: int, left: int, height: int, width: int) -> Boxes:
    """Return what a window of the image shows of its objects, in the window's own pixels.

    Boxes are clipped. One with less than ``MIN_VISIBLE`` of its area inside is difficult, one
    wholly outside is gone.
    """
    moved_n4 = boxes.xyxy_n4 - np.array([left, top, left, top], np.float32)
    inside_n4 = np.clip(moved_n4, 0, np.array([width, height, width, height], np.float32))
    shown_n, whole_n = _areas(inside_n4), _areas(moved_n4)
    there, cut = shown_n > 0, shown_n < MIN_VISIBLE * whole_n
    return Boxes(inside_n4[there], boxes.classes_n[there], (boxes.difficult_n | cut)[there])


def match(found: Detections, truth: Boxes, threshold: float = 0.5) -> tuple[Bools, Bools]:
    """Return for each detection (d,) whether it found an object of its class, and whether it counts
    at all.

    The rule of COCO: detections choose by falling score, each the free object with which its
    intersection over union is largest and at least ``threshold``. One that found none does not
    count where at least ``threshold`` of its own area lies in a difficult object, which any number
    may hit.
    """
    hits, counts = np.zeros(len(found.scores_d), bool), np.ones(len(found.scores_d), bool)
    shared_dn = _shared(found.xyxy_d4, truth.xyxy_n4)
    own_d1, object_1n = _areas(found.xyxy_d4)[:, None], _areas(truth.xyxy_n4)[None]
    # COCO measures difficult objects, its "crowds", by the detection's area alone.
    whole_dn = np.where(truth.difficult_n[None], own_d1, own_d1 + object_1n - shared_dn)
    overlap_dn = np.divide(shared_dn, whole_dn, out=np.zeros_like(shared_dn), where=whole_dn > 0)
    overlap_dn *= found.classes_d[:, None] == truth.classes_n[None]
    free = ~truth.difficult_n
    for d in np.argsort(-found.scores_d, kind="stable") if len(free) else ():
        wanted_n = np.where(free, overlap_dn[d], 0.0)
        best = int(wanted_n.argmax())
        if wanted_n[best] >= threshold:
            hits[d], free[best] = True, False
        else:
            counts[d] = not (overlap_dn[d][truth.difficult_n] >= threshold).any()
    return hits, counts


def detection_evidence(
    found: Sequence[Detections],
    truth: Sequence[Boxes],
    groups: Sequence[str],
    classes: int,
    threshold: float = 0.5,
) -> DetectionEvidence:
    """Return the evidence of detections image by image; images of one group are drawn together."""
    names = tuple(dict.fromkeys(groups))
    objects_GK = np.zeros((len(names), classes))
    counted, hits, positions = [], [], []
    for one, wanted, group in zip(found, truth, groups, strict=True):
        np.add.at(objects_GK[names.index(group)], wanted.classes_n[~wanted.difficult_n], 1.0)
        hit, counts = match(one, wanted, threshold)
        counted.append(one.only(counts))
        hits.append(hit[counts])
        positions.append(np.full(int(counts.sum()), names.index(group)))
    return DetectionEvidence(
        groups=names,
        objects_GK=objects_GK,
        scores_D=np.concatenate([one.scores_d for one in counted]),
        hits_D=np.concatenate(hits),
        classes_D=np.concatenate([one.classes_d for one in counted]),
        group_D=np.concatenate(positions),
    )


def mean_precisions(found: Sequence[Detections], truth: Sequence[Boxes]) -> dict[str, float]:
    """Return COCO's ``map`` (over overlaps of 0.5 to 0.95) and ``map-50`` by torchmetrics; -1
    without any object."""
    metric = MeanAveragePrecision(
        backend="faster_coco_eval",
        max_detection_thresholds=[1, 10, MOST_DETECTIONS],
        # Its default is rounded to float32: a recall of exactly 0.3 would miss the threshold 0.3.
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    metric.warn_on_many_detections = False
    metric.update([_plain(one) for one in found], [_plain(one) for one in truth])
    values = metric.compute()
    return {"map": float(values["map"]), "map-50": float(values["map_50"])}


def _plain(one: Detections | Boxes) -> dict[str, torch.Tensor]:
    parts: dict[str, Any]
    if isinstance(one, Detections):
        parts = {"boxes": one.xyxy_d4, "labels": one.classes_d, "scores": one.scores_d}
    else:
        parts = {"boxes": one.xyxy_n4, "labels": one.classes_n, "iscrowd": one.difficult_n.astype(np.int64)}
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in parts.items()}


def _shared(a_n4: Array, b_m4: Array) -> NDArray[np.float64]:
    """Return the areas (n, m) that boxes share."""
    low = np.maximum(a_n4[:, None, :2], b_m4[None, :, :2]).astype(np.float64)
    sides = np.clip(np.minimum(a_n4[:, None, 2:], b_m4[None, :, 2:]) - low, 0, None)
    return np.asarray(sides[..., 0] * sides[..., 1])


def _areas(xyxy_n4: Array) -> NDArray[np.float64]:
    sides = xyxy_n4[:, 2:].astype(np.float64) - xyxy_n4[:, :2]
    return np.asarray(sides[:, 0] * sides[:, 1])
