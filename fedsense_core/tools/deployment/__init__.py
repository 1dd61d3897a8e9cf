"""What coordinator and institutions start and keep running: Flower's programs, with our
settings."""
