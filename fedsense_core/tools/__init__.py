"""What a person runs around a federation; not part of the app bundle."""
