"""Calibration and parity over Dask workers, to the same bytes as in one process.

Who can reach a scheduler or a worker can run code there, and a client unpickles what its workers
send: use machines that trust each other, and TLS between them. The extra `cluster` brings Dask.
"""
