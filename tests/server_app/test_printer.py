"""A round in the terminal tells what a person watches for, and nothing moves where nobody
watches."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from server_app.printer import RoundPrinter, describe_round


def terminal(width: int = 60, is_terminal: bool = False) -> Console:
    colours = "truecolor" if is_terminal else None
    return Console(file=io.StringIO(), width=width, force_terminal=is_terminal, color_system=colours)


def test_block_names_every_figure_of_the_round(history):
    block = describe_round(history[2], 8, history[0]["probe"], 90)
    assert block.splitlines() == [
        "round 2/8 · 23 s · about 1 min 30 s left",
        "  replies   3 accepted (modis, landsat, aerial), 0 rejected",
        "  loss      2.500 (ssl 2.000, alignment 0.250)",
        "  bytes     up 390 kB (30.8 times fewer than float32), down 1.50 MB (8.0 times fewer than float32)",
        "  seconds   down 0.1, clients 20.0, aggregate 1.0, evaluate 2.0",
        "  guidance  radius 0.1, learning rate 1.00e-03",
        "  probe     linear F1 0.340 ± 0.020, accuracy 0.360; kNN F1 0.270, accuracy 0.290",
        "            linear F1 0.250 ± 0.020, accuracy 0.270; kNN F1 0.180, accuracy 0.200 with random weights",
    ]


def test_rejected_reply_is_named_with_its_reason(history):
    block = describe_round(history[3], 8)
    assert "2 accepted (modis, landsat), 1 rejected" in block
    assert "rejected aerial: checksum differs" in block


def test_note_on_a_site_has_its_own_line(make_round):
    line = make_round(1) | {"notes": [{"site": "\x1b[2Jaerial", "note": "its residual\nwas dropped"}]}
    assert "\n  notes      [2Jaerial: its residual was dropped\n" in describe_round(line, 2)


def test_random_weights_are_described_before_the_first_round(history):
    assert describe_round(history[0], 8, history[0]["probe"]).splitlines() == [
        "before training (random weights)",
        "  probe     linear F1 0.250 ± 0.020, accuracy 0.270; kNN F1 0.180, accuracy 0.200",
    ]


def test_given_weights_are_not_called_random(history):
    screen = terminal(200)
    printer = RoundPrinter(8, console=screen)
    for line in ({**history[0], "weights": "given"}, history[2]):
        printer.show(line)
    text = screen.file.getvalue()
    assert "before training (given weights)" in text
    assert "with given weights" in text
    assert "random" not in text


def test_round_in_which_everybody_failed_is_described():
    line = {"round": 1, "loss": None, "accepted": [], "rejected": [{"node": "17", "reason": "no reply"}], "seconds": {}}
    assert describe_round(line, 3).splitlines() == [
        "round 1/3",
        "  replies   0 accepted, 1 rejected",
        "            rejected 17: no reply",
    ]


def test_round_without_clients_shows_what_the_server_learned(make_round):
    metrics = make_round(3) | {"asked": 0, "accepted": [], "rejected": [], "loss": None, "ssl_loss": None}
    block = describe_round(metrics | {"alignment_loss": None, "distillation_loss": 1.25}, 3)
    assert "none: no client is asked" in block
    assert "distillation 1.250" in block


def test_names_chosen_by_clients_cannot_steer_the_terminal(make_round):
    line = make_round(1, [{"node": "\x1b[2Jsite", "reason": "a\nround 9/9"}])
    block = describe_round(line, 2)
    assert "\x1b" not in block
    assert "rejected  [2Jsite: a round 9/9" in block


def test_printer_writes_plain_unwrapped_lines_where_there_is_no_terminal(history):
    console = terminal(width=40)
    printer = RoundPrinter(4, console=console)
    for line in history:
        printer.show(line)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert text.count("with random weights") == 2
    assert "  replies   3 accepted (modis, landsat, aerial), 0 rejected\n" in text


def test_square_brackets_are_text_not_markup(make_round):
    console = terminal()
    RoundPrinter(2, console=console).show(make_round(1, [{"node": "[red]x[/red]", "reason": "[/]"}]))
    assert "rejected [red]x[/red]: [/]" in console.file.getvalue()


def test_time_left_is_the_mean_of_the_last_rounds(history):
    printer = RoundPrinter(10, history)
    assert printer.seconds_left() == pytest.approx(6 * 23.1)
    assert RoundPrinter(10).seconds_left() is None
    assert RoundPrinter(10, history[:1]).seconds_left() is None


def test_no_spinner_without_a_terminal():
    quiet, live = terminal(), terminal(is_terminal=True)
    for console in (quiet, live):
        with RoundPrinter(1, console=console).waiting("waiting for clients"):
            pass
    assert quiet.file.getvalue() == ""
    assert "waiting for clients" in live.file.getvalue()
