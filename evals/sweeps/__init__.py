"""Sweeps: a grid of points that train and evaluate, or only evaluate, and one table over all of them.

A sweep file (``evals.sweeps.schema``) becomes a list of points (``evals.sweeps.grid``), the plan says what they
cost (``evals.sweeps.plan``), the scheduler starts them on an executor (``evals.sweeps.runner``), each point is a
process of its own (``evals.sweeps.point``), and everything lies in one folder (``evals.sweeps.folder``), from
which the table (``evals.sweeps.results``), the report and the tracking read. Training itself is behind
``evals.sweeps.api.Trainer``: nothing here knows what a stage learns.
"""
