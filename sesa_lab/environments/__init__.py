"""What is asked: environments give tasks and judge answers. They never see a model.

``make(name, **options)`` builds one, ``names()`` and ``describe()`` say what there is, ``check(env)`` holds one to the
contract in ``contract.Environment``.
"""

from sesa_lab.environments.checker import check
from sesa_lab.environments.contract import Environment
from sesa_lab.environments.registry import describe, make, names

__all__ = ["Environment", "check", "describe", "make", "names"]
