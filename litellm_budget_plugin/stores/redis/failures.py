"""The meaning of the errors of Redis and of redis-py for the operator of the store."""

from __future__ import annotations

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from litellm_budget_plugin.errors import BudgetError, BudgetStoreError, BudgetStoreUnavailable

LOST = (RedisConnectionError, RedisTimeoutError, OSError)
"""The errors after which a connection is no longer usable."""

# redis-py removes the code from messages that it knows, and expresses it by the class.
_CODES = {
    "AskError": "ASK",
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "WRONGPASS",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "TryAgainError": "TRYAGAIN",
}
_TEMPORARY = {
    "ASK": "the hash slot of this project is being moved to another node",
    "BUSY": "a script keeps the server busy",
    "CLUSTERDOWN": "the cluster is down",
    "LOADING": "the server is loading its data",
    "MASTERDOWN": "the server is a replica without a master",
    "MOVED": "the cluster has moved this project to another node",
    "NOREPLICAS": "the server has too few replicas to accept writes (min-replicas-to-write)",
    "READONLY": "the server is a read-only replica",
    "TRYAGAIN": "the hash slot of this project is being moved to another node",
    "UNBLOCKED": "the server has just become a replica",
}
_WAYS_OUT = {
    "CROSSSLOT": "a proxy or cluster does not keep to the hash tags of keys",
    "MISCONF": "the server cannot write its snapshot and refuses changes; see its log, and free or repair its disk",
    "NOAUTH": "the server asks for a password; write it into the URL (redis://:password@host)",
    "NOPERM": "the user of the URL lacks a permission; docs/redis.md lists the ACL",
    "OOM": "the server's memory is full and it refuses changes; give it more (maxmemory), or sweep with a shorter retention",
    "WRONGPASS": "the server refuses the user or the password of the URL",
    "WRONGTYPE": "its keys with this prefix are not those of a ledger; choose another prefix by ?prefix=",
}


def code_of(error: Exception) -> str:
    """The code of an error reply: MOVED, NOSCRIPT, ... Empty if the error is not a reply."""
    for kind in type(error).__mro__:
        if kind.__name__ in _CODES:
            return _CODES[kind.__name__]
    if not isinstance(error, ResponseError):
        return ""
    # An error inside a script quotes the error of the command that it called.
    if "user executing the script can't" in str(error):
        return "NOPERM"
    words = str(error).replace("-", " ").split()
    known = (word for word in words if word in _TEMPORARY or word in _WAYS_OUT or word == "NOSCRIPT")
    return next(known, words[0] if words else "")


def is_temporary(error: Exception) -> bool:
    """Whether another server, or the same one soon, may answer."""
    if code_of(error) in _TEMPORARY:
        return True
    if isinstance(error, BudgetStoreError):
        return isinstance(error, BudgetStoreUnavailable)
    return isinstance(explained(error, "redis+cluster", 0.0), BudgetStoreUnavailable)


def explained(error: Exception, name: str, seconds: float) -> BudgetError:
    """The error of this package for a failure of the server called `name`, with its cause and its remedy. `seconds` is
    the time allowed for an answer.
    """
    code, said = code_of(error), f"{error}" or type(error).__name__
    if code == "MOVED" and "+cluster" not in name:
        return BudgetStoreError(f"{name}: the server belongs to a cluster; write redis+cluster:// ({said})")
    if code in _WAYS_OUT:
        return BudgetStoreError(f"{name}: {_WAYS_OUT[code]} ({said})")
    if code in _TEMPORARY:
        return BudgetStoreUnavailable(f"{name}: {_TEMPORARY[code]}; try again ({said})")
    return _lost(error, name, seconds, said)


def _lost(error: Exception, name: str, seconds: float, said: str) -> BudgetError:
    if isinstance(error, (RedisTimeoutError, TimeoutError)):
        return BudgetStoreUnavailable(f"{name}: no answer within {round(seconds, 2):g} s; try again")
    if "certificate verify failed" in said or "CERTIFICATE_VERIFY_FAILED" in said:
        return BudgetStoreError(
            f"{name}: its certificate cannot be verified; name its authority by ?ssl_ca_certs= ({said})"
        )
    if isinstance(error, LOST):
        return BudgetStoreUnavailable(f"{name}: the connection could not be made or was lost; try again ({said})")
    return BudgetStoreError(f"{name}: the server refuses a command of the ledger: {said}")
