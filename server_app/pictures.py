"""The pictures of a report that only the server can make: it holds the encoder, the public and the labelled imagery."""
