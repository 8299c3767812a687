"""Everything that runs on Ray. No other room of this package imports Ray."""

import os

VERBOSE = "SCHN_RAY_VERBOSE"  # set by the CLI's -v: Ray's own bars, logs and warnings

# Ray reads these when it is imported, so the one room that imports it sets them first.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` rebuilds the environment in every worker
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report waits for this poll: 2 s by default
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else every print comes twice
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Ctrl-C ends a search as if it were finished
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # a search's state is in its study, not in Tune's files
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin steal the cores of other workers
}
if VERBOSE not in os.environ:
    _SETTINGS["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    # else Ray's core answers SIGTERM with a trace and exit code 134, until ray.init has returned
    _SETTINGS["RAY_DISABLE_FAILURE_SIGNAL_HANDLER"] = "1"
    _SETTINGS["RAY_AIR_NEW_OUTPUT"] = "0"  # else Tune prints boxes to standard output, always
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
