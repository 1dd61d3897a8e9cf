"""Every rule of admission and aggregation looks at the whole update, prediction included."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from federation import tiny
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity
from judging import sent_by
from spooled import spooled

from fedsense_core.codecs.codec import get_codec
from fedsense_core.errors import Rejected
from fedsense_core.models.pretraining import build_model
from fedsense_core.protocol.broadcast import Stream
from fedsense_core.protocol.frame import FrameHeader, FrameKind, pack
from fedsense_core.protocol.messages import TrainReply
from fedsense_core.protocol.replica import Replica
from fedsense_core.tensors import TensorTable
from server_app.admission import Admission
from server_app.aggregation.rule import weighted_mean
from server_app.drift_metrics import drift_of
from server_app.round import Accepted, Expected, Round
from server_app.transport import Answer


@pytest.fixture(autouse=True)
def _identity() -> None:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1


def judged(tmp_path: Path, prediction: float, most: float = 1_000.0) -> tuple[Accepted | Rejected, torch.Tensor]:
    """Admit one small update over a large prediction; return the verdict and the update that was
    meant."""
    config = tiny(admission__first_round_max_norm=most, uplink__codec="none")
    table = TensorTable.of(build_model(config))
    generator = torch.Generator().manual_seed(0)
    predicted = prediction * torch.nn.functional.normalize(torch.randn(table.numel, generator=generator), dim=0)
    stream, codec = Stream(1, 0, table, 0.9), get_codec("none", 32)
    replica = Replica(3, torch.zeros(table.numel), torch.ones(table.numel))
    expected = Expected(config, stream, 3, replica, replica.digest(), predicted)
    rest = 1e-3 * torch.randn(table.numel, generator=generator)
    payload = codec.encode(rest, table, 0)
    header = FrameHeader(
        kind=FrameKind.UPDATE,
        run_id=1,
        round=3,
        base_version=3,
        base_digest=replica.digest(),
        codec_id=codec.id,
        bits=codec.bits,
        elements=table.numel,
        table_digest=table.digest,
        payload_bytes=len(payload),
    )
    reply = TrainReply("alpha", "trained", metrics={"num-examples": 8}, frame=pack(header, payload), nonce=b"secret")
    message = sent_by(5, Message(reply.to_records(), 5, "train"))
    round = Round(3, expected, torch.zeros(len(table)), torch.zeros(len(table)), nonces={5: b"secret"})
    return Admission(config, tmp_path).admit(Answer(5, message), "alpha", round), predicted + rest


def test_norm_mean_spread_and_teachers_are_of_the_whole_update(tmp_path: Path) -> None:
    accepted, meant = judged(tmp_path, prediction=50.0)
    assert isinstance(accepted, Accepted)
    assert accepted.norm == pytest.approx(float(meant.norm()), rel=1e-5)
    assert torch.equal(accepted.update(), meant)
    assert torch.equal(weighted_mean([accepted]), meant)
    drift, cosine = drift_of([accepted], meant)
    assert drift == {"alpha": 0.0}
    assert cosine["alpha"] == pytest.approx(1.0)


def closed(tmp_path: Path, admission: Admission, norms: list[float]) -> Round:
    """Return a round of one coordinate whose replies have these norms, once it is compared."""
    accepted = spooled(tmp_path, [torch.tensor([norm]) for norm in norms], tiny(uplink__codec="none"))
    tensors = torch.zeros(1)
    round = Round(1, accepted[0].expected, tensors, tensors, accepted=accepted)
    admission.compare(round)
    admission.remember(round.accepted)
    return round


def test_limit_of_the_first_round_is_of_the_round_itself_and_later_ones_of_the_last(tmp_path: Path) -> None:
    admission = Admission(tiny(admission__norm_rounds=2), tmp_path)
    assert admission.norm_limit() == (1_000.0, "admission.first_round_max_norm")
    first = closed(tmp_path, admission, [4.5, 900.0, 4.0, 5.0])
    assert [(one.node, one.reason) for one in first.rejected] == [
        ("site-001", "update norm 900 is above 47.5 (10 times the median of its round)")
    ]
    assert not (tmp_path / "site-001.frame").exists()
    assert admission.norm_limit() == (45.0, "10 times the median of the last rounds")
    closed(tmp_path, admission, [0.5, 0.5, 0.5])
    closed(tmp_path, admission, [0.1, 0.1, 0.1])
    assert admission.norm_limit()[0] == pytest.approx(3.0), "the first round is forgotten"
    last = closed(tmp_path, admission, [0.1, 0.1, 2.9])
    assert [one.node for one in last.rejected] == ["site-002"], "above ten times its own round"

    again = Admission(tiny(admission__norm_rounds=2), tmp_path)
    again.load_state_dict(admission.state_dict())
    assert again.norm_limit() == admission.norm_limit()


def test_a_minority_cannot_raise_the_limit_round_by_round(tmp_path: Path) -> None:
    admission = Admission(tiny(), tmp_path)
    sent = 1.0
    for _ in range(30):
        sent = min(9.99 * sent, 0.999 * admission.norm_limit()[0])
        closed(tmp_path, admission, [1.0, 1.1, 0.9, sent, sent])
    assert admission.norm_limit()[0] <= 11.0 * (1 + 1e-6)


def test_update_too_large_with_its_prediction_is_rejected(tmp_path: Path) -> None:
    rejected, _ = judged(tmp_path, prediction=50.0, most=40.0)
    assert isinstance(rejected, Rejected)
    assert rejected.reason.startswith("update norm 50")
