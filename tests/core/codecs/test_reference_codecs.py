"""The reference codecs do what every codec here must."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_codecs import (
    CONTRACTIONS,
    EVERY,
    KEPT,
    QSGD,
    TOPK,
    draw,
    error,
    every_codec_form,
    every_distribution,
    flat,
    name_of,
    round_trip,
)

from fedsense_core.codecs.codec import codec_by_id, every_codec, get_codec
from fedsense_core.codecs.float8 import Float8
from fedsense_core.codecs.int8 import Int8
from fedsense_core.codecs.qsgd import Qsgd
from fedsense_core.codecs.reference import ReferenceCodec, uniform
from fedsense_core.codecs.sign import Sign
from fedsense_core.codecs.ternary import Ternary
from fedsense_core.codecs.topk import TopK
from fedsense_core.errors import ConfigError, FrameError
from fedsense_core.tensors import TensorTable

BLOCK_BYTES = {"sign": 128, "ternary": 205, "float8": 1024, "int8": 1024}


@every_codec_form
def test_payloads_have_the_bytes_that_the_formats_say(codec: ReferenceCodec) -> None:
    block = BLOCK_BYTES.get(codec.name, 128 * codec.bits)
    if codec.name == "topk":
        block = KEPT[codec.bits] * 3 + math.ceil(KEPT[codec.bits] / 4)
        assert 128 * codec.bits - 3 <= block <= 128 * codec.bits
    assert codec.payload_bytes(flat(5000)) == 5 * block + 4 + 5 * 2
    assert codec.payload_bytes(flat(1000)) == 4 + 1000 * 2


def test_they_are_registered_under_their_numbers() -> None:
    numbers = {"sign": 6, "qsgd": 7, "ternary": 8, "topk": 9, "float8": 10, "int8": 11}
    for codec in EVERY:
        assert codec.id == numbers[codec.name]
        assert codec_by_id(codec.id, codec.bits) == get_codec(codec.name, codec.bits) == codec
    assert Counter(codec.name for codec in EVERY) == dict(zip(numbers, (1, 7, 1, 8, 1, 1), strict=True))
    assert {codec for codec in every_codec() if codec.name in numbers} == set(EVERY)


@every_codec_form
@every_distribution
def test_the_error_does_not_depend_on_the_magnitude(codec: ReferenceCodec, distribution: str) -> None:
    expected = error(draw(distribution, 8192, 1.0), round_trip(codec, draw(distribution, 8192, 1.0)))
    for rms in (1e-9, 1e-4, 1e3):
        vector = draw(distribution, 8192, rms)
        assert error(vector, round_trip(codec, vector)) == pytest.approx(expected, rel=0.01)


@settings(max_examples=300, deadline=None)
@given(
    codec=st.sampled_from(EVERY),
    size=st.integers(0, 4097),
    exponent=st.integers(-140, 39),
    spikes=st.lists(st.tuples(st.integers(0, 4096), st.floats(-(2.0**40), 2.0**40, width=32)), max_size=5),
    seed=st.integers(-(2**70), 2**70),
)
def test_any_vector_decodes_to_its_shape_in_finite_numbers(
    codec: ReferenceCodec, size: int, exponent: int, spikes: list[tuple[int, float]], seed: int
) -> None:
    vector = (torch.randn(size, generator=torch.Generator().manual_seed(size)).double() * 2.0**exponent).float()
    vector.clamp_(-(2.0**40), 2.0**40)
    for index, value in spikes:
        vector[index : index + 1] = value
    before = vector.clone()
    decoded = round_trip(codec, vector, seed=seed)
    assert torch.equal(vector, before)
    assert decoded.shape == (size,)
    assert decoded.dtype == torch.float32
    assert torch.isfinite(decoded).all()
    if codec in CONTRACTIONS:
        assert (decoded.double() - vector.double()).norm() <= vector.double().norm() * 1.001


@every_codec_form
@pytest.mark.parametrize("size", [0, 1, 2, 1023, 1024, 1025, 2047, 2048, 2049, 4096, 4097, 256 * 1024 + 1])
def test_sizes_around_every_border_survive(codec: ReferenceCodec, size: int) -> None:
    vector = draw("normal", size) if size else torch.zeros(0)
    decoded = round_trip(codec, vector)
    assert decoded.shape == (size,)
    if size >= 1024 and codec in CONTRACTIONS:
        assert error(vector, decoded) < 0.8


@settings(max_examples=60, deadline=None)
@given(codec=st.sampled_from(EVERY), seed=st.integers(0, 2**64 - 1), unbiased=st.booleans())
def test_encoding_and_decoding_are_functions_of_their_arguments(
    table: TensorTable, codec: ReferenceCodec, seed: int, unbiased: bool
) -> None:
    vector = draw("normal", table.numel, seed=seed % 1000)
    torch.manual_seed(seed % 7)  # global random state must not matter
    payload = codec.encode(vector, table, seed, unbiased=unbiased)
    torch.manual_seed(seed % 11)
    assert payload == codec.encode(vector, table, seed)  # ``unbiased`` changes nothing in any of them
    out = torch.full((table.numel,), 7.0)
    decoded = codec.decode(memoryview(payload), table, seed, out)
    assert decoded is out
    assert torch.equal(codec.decode(payload, table, seed + 1), out)  # the codes alone say what they stand for


@settings(max_examples=60, deadline=None)
@given(codec=st.sampled_from(EVERY), power=st.integers(-20, 40), seed=st.integers(0, 2**32 - 1))
def test_a_power_of_two_passes_through(table: TensorTable, codec: ReferenceCodec, power: int, seed: int) -> None:
    vector = draw("laplace", table.numel, seed=seed)
    expected = round_trip(codec, vector, table, seed) * 2.0**power
    assert torch.equal(round_trip(codec, vector * 2.0**power, table, seed), expected)


@pytest.mark.parametrize("codec", [Qsgd(4), Ternary()], ids=name_of)
def test_random_choices_follow_seed_and_block(codec: ReferenceCodec) -> None:
    vector = draw("normal", 1024).repeat(4)
    decoded = round_trip(codec, vector).view(4, 1024)
    assert not any(torch.equal(decoded[i], decoded[j]) for i in range(4) for j in range(i))
    assert not torch.equal(decoded.view(-1), round_trip(codec, vector, seed=1))


def test_draws_do_not_depend_on_where_a_chunk_begins_and_are_uniform() -> None:
    drawn = uniform(3, 0, 600)
    assert torch.equal(uniform(3, 511, 20), drawn[511:531])
    assert torch.equal(uniform(3 - 2**64, 0, 2), drawn[:2])
    assert 0 < float(drawn.min()) < 1e-4
    assert 1 - 1e-4 < float(drawn.max()) < 1
    counts = torch.histc(drawn, 64, 0, 1)
    assert float((counts - drawn.numel() / 64).square().sum() / (drawn.numel() / 64)) < 63 + 5 * math.sqrt(2 * 63)


@every_codec_form
def test_zeros_come_back_as_zeros_in_every_bit(table: TensorTable, codec: ReferenceCodec) -> None:
    assert round_trip(codec, torch.zeros(table.numel), table).numpy().tobytes() == bytes(4 * table.numel)
    vector = -torch.zeros(4096)
    vector[1024:2048] = draw("normal", 1024)
    decoded = round_trip(codec, vector)
    assert decoded[:1024].numpy().tobytes() + decoded[2048:].numpy().tobytes() == bytes(4 * 3072)
    assert decoded[1024:2048].any()


@every_codec_form
def test_float64_and_strided_vectors_give_the_payload_of_their_float32_values(
    table: TensorTable, codec: ReferenceCodec
) -> None:
    vector = draw("normal", table.numel)
    strided = torch.stack([vector.double(), torch.zeros(table.numel)], 1)[:, 0]
    assert codec.encode(strided, table, 5) == codec.encode(vector, table, 5)


@pytest.mark.parametrize(("kind", "bits"), [(Sign, 2), (Qsgd, 1), (Qsgd, 9), (Ternary, 1), (TopK, 0), (Int8, 7)])
def test_bits_that_a_codec_does_not_have_are_refused(kind: type[ReferenceCodec], bits: int) -> None:
    with pytest.raises(ValueError, match=f"no {bits}-bit form"):
        kind(bits)


@every_codec_form
def test_water_filling_is_refused(codec: ReferenceCodec) -> None:
    with pytest.raises(ConfigError, match=f"codec '{codec.name}' gives every tensor the same bits"):
        get_codec(codec.name, codec.bits, waterfill=True)


def spliced(payload: bytes, at: int, part: bytes) -> bytes:
    return payload[:at] + part + payload[at + len(part) :]


@every_codec_form
def test_payloads_of_a_wrong_length_are_refused(table: TensorTable, codec: ReferenceCodec) -> None:
    payload = codec.encode(torch.ones(table.numel), table, 0)
    for wrong in (b"", payload[:-1], payload + b"\0", payload * 2, payload[: len(payload) // 2]):
        with pytest.raises(FrameError, match=f"has {len(wrong)} bytes, but .* need {len(payload)}"):
            codec.decode(wrong, table, 0)


@settings(max_examples=300, deadline=None)
@given(codec=st.sampled_from(EVERY), seed=st.integers(0, 2**32 - 1), damage=st.sampled_from(["all", "codes", "few"]))
def test_hostile_bytes_decode_to_finite_numbers_or_are_refused(
    table: TensorTable, codec: ReferenceCodec, seed: int, damage: str
) -> None:
    rng = np.random.default_rng(seed)
    sound = codec.encode(draw("normal", table.numel, 2.0**36), table, 0)
    payload = bytearray(sound if damage == "few" else rng.bytes(len(sound)))
    if damage == "codes":
        codes = 5 * codec.block_bytes(codec.bits)
        payload[codes:] = sound[codes:]
    for at in rng.integers(0, len(payload), 3):
        payload[at] = rng.integers(0, 256)
    out = torch.full((table.numel,), 7.0)
    try:
        codec.decode(bytes(payload), table, 0, out)
    except FrameError:
        assert (out == 7.0).all()  # refused before anything is written
    else:
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("codec", [Sign(), *QSGD], ids=name_of)
def test_every_code_of_sign_and_qsgd_is_sound(table: TensorTable, codec: ReferenceCodec) -> None:
    sound = codec.encode(torch.ones(table.numel), table, 0)
    codes = 5 * codec.block_bytes(codec.bits)
    payload = np.random.default_rng(0).bytes(codes) + sound[codes:]
    assert torch.isfinite(codec.decode(payload, table, 0)).all()


@every_codec_form
def test_the_largest_and_smallest_scales_that_are_read_leave_normal_numbers(codec: ReferenceCodec) -> None:
    payload, codes = codec.encode(draw("student_t3", 4096), flat(4096), 0), 4 * codec.block_bytes(codec.bits)
    for tensor_scale, block_scale in ((2.0**31, 2.0**15), (2.0**-65, 2.0**-24)):
        scales = np.array(tensor_scale, "<f4").tobytes() + np.full(4, block_scale, "<f2").tobytes()
        magnitudes = codec.decode(payload[:codes] + scales, flat(4096), 0).abs()
        assert torch.isfinite(magnitudes).all()
        assert magnitudes[magnitudes > 0].min() >= torch.finfo(torch.float32).tiny


@pytest.mark.parametrize(
    ("codec", "forbidden"),
    [(Ternary(), range(243, 256)), (Float8(), (0x7F, 0xFF)), (Int8(), (0x80,))],
    ids=["ternary", "float8", "int8"],
)
def test_bytes_that_stand_for_nothing_are_refused_wherever_they_are(codec: ReferenceCodec, forbidden: range) -> None:
    table = flat(300 * 1024)  # the last byte lies in a second chunk
    payload = codec.encode(torch.ones(table.numel), table, 0)
    last = 300 * codec.block_bytes(codec.bits) - 1
    for byte in forbidden:
        for at in (0, last // 2, last):
            with pytest.raises(FrameError, match=f"no encoder of '{codec.name}'"):
                codec.decode(spliced(payload, at, bytes([byte])), table, 0)
    for byte in set(range(256)) - set(forbidden):
        assert torch.isfinite(codec.decode(spliced(payload, 5, bytes([byte])), table, 0)[:1024]).all()


@pytest.mark.parametrize("codec", TOPK, ids=name_of)
def test_topk_refuses_indices_twice_or_out_of_order_and_values_beyond_the_largest(codec: TopK) -> None:
    kept, table = KEPT[codec.bits], flat(1024)
    vector = torch.zeros(1024)
    vector[100 : 100 + kept] = 1.0
    payload = codec.encode(vector, table, 0)
    for index in (100, 99, 102):
        with pytest.raises(FrameError, match="topk"):
            codec.decode(spliced(payload, 1, bytes([index])), table, 0)
    values = kept + math.ceil(kept / 4)
    for hostile in (math.nan, math.inf, -math.inf, 1.001, -2.0, 65504.0):
        for at in (0, kept - 1):
            with pytest.raises(FrameError, match="topk"):
                codec.decode(spliced(payload, values + 2 * at, np.array(hostile, "<f2").tobytes()), table, 0)


@pytest.mark.parametrize("bits", [1, 8])
def test_topk_indices_in_the_filling_are_harmless(bits: int) -> None:
    sound = TopK(bits).encode(draw("normal", 2048), flat(2048), 0)
    decoded = TopK(bits).decode(sound, flat(1100), 0)
    assert torch.equal(decoded, TopK(bits).decode(sound, flat(2048), 0)[:1100])


def test_readers_written_from_the_formats_alone_agree() -> None:
    vector = draw("laplace", 2048)
    payload = Ternary().encode(vector, flat(2048), 9)
    octets, scales = np.frombuffer(payload, np.uint8, 410).reshape(2, 205), read_scales(payload, 410)
    digits = octets[:, :, None].astype(int) // 3 ** np.arange(5) % 3
    read = np.array([0, 1, -1])[digits].reshape(2, 1025)[:, :1024] * scales
    np.testing.assert_array_equal(Ternary().decode(payload, flat(2048), 9).numpy(), read.reshape(-1).astype("f4"))

    payload = TopK(1).encode(vector, flat(2048), 9)
    read, scales = np.zeros((2, 1024)), read_scales(payload, 254)
    for block in range(2):
        low, high = payload[127 * block : 127 * block + 39], payload[127 * block + 39 : 127 * block + 49]
        values = np.frombuffer(payload, "<f2", 39, offset=127 * block + 49)
        for i in range(39):
            read[block, low[i] + 256 * (high[i // 4] >> 2 * (i % 4) & 3)] = values[i]
    decoded = TopK(1).decode(payload, flat(2048), 9).numpy()
    np.testing.assert_array_equal(decoded, (read * scales).reshape(-1).astype("f4"))


def read_scales(payload: bytes, codes: int) -> np.ndarray:
    """The scale of each of two blocks, float32 (2, 1), after ``codes`` bytes of codes."""
    return np.frombuffer(payload, "<f4", 1, codes) * np.frombuffer(payload, "<f2", 2, codes + 4)[:, None].astype("<f4")


GOLDEN = {
    "sign1": "00d007390000c03800788a7700f855f555f1 b306fe886ecf8c22 ecb4614676d31da2",
    "topk1": "000080390000c0380078007400f855f555f1 56bfb055aa123247 66fd8968898d0cc8",
    "topk2": "000080390000c0380078007400f855f555f1 d2784c86b4d3b53a cc122e5df0cd0076",
    "topk3": "000080390000c0380078007400f855f555f1 628cff49d9aa54d5 afcdbe97f9a6e6e1",
    "topk4": "000080390000c0380078007400f855f555f1 274129b0e49e273d 177a6f8cdf5b6779",
    "topk5": "000080390000c0380078007400f855f555f1 bfebe4ecdef205ff 63e493cae9b49760",
    "topk6": "000080390000c0380078007400f855f555f1 8087383f127b1f16 3f1eb5330f23769c",
    "topk7": "000080390000c0380078007400f855f555f1 722ac4d8c63cb518 63555dade9ca864d",
    "topk8": "000080390000c0380078007400f855f555f1 3f021725d5bdba04 149b9abb6fd44447",
    "float88": "254912350000c0380078007400f855f555f1 76e92acdf5a1180f 639ca502c0b9bc38",
    "int88": "040201360000c0380078007400f855f555f1 180854be082f6ada 097c8af0446a33b8",
    "qsgd2": "14049d3b0000c0380078866200f855f555f1 b965ce0808c50f42 342f81b29e42225d",
    "qsgd3": "c55ad13a0000c0380078866200f855f555f1 acb82587f7985687 80c6336b7ed1af9a",
    "qsgd4": "6072333a0000c0380078866200f855f555f1 834b76aa51c03823 ecae11f7a79cbba2",
    "qsgd5": "d17ba7390000c0380078866200f855f555f1 3495f8055b5c34c4 cf2e734bb5692e5d",
    "qsgd6": "ba1422390000c0380078866200f855f555f1 2561101dd925f2cc b98ed6caaab6f9b8",
    "qsgd7": "1c829f380000c0380078866200f855f555f1 20a8864ba925cb72 4c360e919dbec776",
    "qsgd8": "95401e380000c0380078866200f855f555f1 25e94329ecf73fd2 53559e22fe1adde7",
    "ternary2": "000080390000c0380078007400f855f555f1 c22368cbbaa665a0 ff63acdb4e0591f4",
}
"""Tensor scales, block scales and small values in hexadecimal; digest of the payload; digest of
what it decodes to."""


@every_codec_form
def test_golden_payload(codec: ReferenceCodec) -> None:
    table = TensorTable.from_shapes({"w": (25, 41), "b": (3,)})
    vector = torch.arange(table.numel, dtype=torch.float32) % 17 - 8
    payload = codec.encode(vector, table, seed=42)
    decoded = codec.decode(payload, table, seed=42)
    scales = payload[2 * codec.block_bytes(codec.bits) :].hex()
    digests = [hashlib.blake2b(b, digest_size=8).hexdigest() for b in (payload, decoded.numpy().tobytes())]
    assert " ".join([scales, *digests]) == GOLDEN[name_of(codec)]


@pytest.mark.gpu
@every_codec_form
def test_a_vector_on_a_gpu_gives_the_payload_of_its_copy_and_is_decoded_there(
    table: TensorTable, codec: ReferenceCodec
) -> None:
    vector = draw("normal", table.numel)
    payload = codec.encode(vector, table, 1)
    assert codec.encode(vector.cuda(), table, 1) == payload
    out = torch.empty(table.numel, device="cuda")
    assert torch.equal(codec.decode(payload, table, 1, out).cpu(), codec.decode(payload, table, 1))
