"""Row losses: the loss, gradient and hessian of every row, written to Parquet beside the columns that the user keeps.

Each input file has one output file of the same relative name. Its rows stand in the same order, so that row i of one
belongs to row i of the other; a row that has no loss keeps its place, with nulls. Whatever stops a run, the files that
are there are whole (`fastloss.files`), and a run with the same request does the rest: each output carries a
fingerprint of the request and of its input, and the counts of its rows.

By a group key, one output has the losses and rankings of every group, or of the worst: `groups` carries that out.
"""

from __future__ import annotations

from fastloss.scoring.plan import ScorePlan, make_score_plan
from fastloss.scoring.request import ScoreRequest, refuse_a_column
from fastloss.scoring.result import ScoreResult
from fastloss.scoring.run import run_score

__all__ = ["ScorePlan", "ScoreRequest", "ScoreResult", "make_score_plan", "refuse_a_column", "run_score"]
