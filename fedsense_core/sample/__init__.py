"""The sample federation: mosaics of real imagery, one folder and one site file per institution (see
ATTRIBUTION.md)."""
