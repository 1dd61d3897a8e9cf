"""The ClientApp: wiring only."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client_app import round as work
from fedsense_core.protocol.messages import TrainTask, hello_run_id

app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Answer who this client is and what it has."""
    return Message(work.introduce(context, hello_run_id(message)).to_records(), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer with this round's update or the reason why there is none."""
    return Message(work.train(context, TrainTask.from_records(message.content)).to_records(), reply_to=message)
