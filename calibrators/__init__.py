"""Arrays in, ranges out: what calibration needs, with NumPy and Pillow only.

Knows no graph and no backend, and imports nothing from `deploy`.
"""
