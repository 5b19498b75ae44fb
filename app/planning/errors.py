"""Why there is no plan."""

from app.contract.problem import Problem


class PlanningError(Exception):
    """What was asked for cannot be planned; the problem says why, and the way out."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem
