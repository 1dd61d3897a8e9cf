from fedsense_core.tools.runner.log_lines import LogLines

STREAM = """\
Using SuperLink: simulation (127.0.0.1:41091)
Successfully started run 7225689566654477303
\x1b[92mINFO \x1b[0m:      Starting Flower Simulation
\x1b[93mWARNING \x1b[0m:   Since flwr 1.32, default simulated SuperNodes changed from 10 to 2.
\x1b[92mINFO \x1b[0m:      \tflwr federation simulation-config @none/default <superlink> --num-supernodes <N>
\x1b[92mINFO \x1b[0m:      Starting FedSense at round 1 of 2:
\x1b[92mINFO \x1b[0m:      \t├── preset fedsense
round 1/2
  loss      4.889
\x1b[93mWARNING \x1b[0m:   alpha is left out of the round: needs-snapshot
\x1b[91mERROR \x1b[0m:     FedSense stopped: no round was aggregated
\x1b[91mERROR \x1b[0m:     Simulation raised an exception
Traceback (most recent call last):
  File "app.py", line 22, in main
ValueError: text
\x1b[91mERROR \x1b[0m:     Exit Code: 700

An unhandled exception occurred when running the simulation.
"""


def tidy(stream: str) -> list[str]:
    lines = LogLines()
    return [text for line in stream.splitlines(keepends=True) if (text := lines.tidy(line)) is not None]


def test_what_flower_says_about_itself_is_left_out() -> None:
    assert tidy(STREAM) == [
        "Starting FedSense at round 1 of 2:",
        "├── preset fedsense",
        "round 1/2",
        "  loss      4.889",
        "warning: alpha is left out of the round: needs-snapshot",
    ]


def test_the_log_goes_on_after_a_traceback() -> None:
    assert tidy("Traceback (most recent call last):\n  File\nINFO :      round\n") == ["round"]


def test_an_error_keeps_its_level() -> None:
    assert tidy("ERROR :     no space left on device\n") == ["error: no space left on device"]
