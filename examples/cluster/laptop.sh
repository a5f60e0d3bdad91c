#!/bin/bash
# A laptop, or any machine alone: bash examples/cluster/laptop.sh [RECIPE] [options of brainseg cross-validate]
# Ray starts and ends with the command. Two folds at once here, if each takes half of the processors.
set -euo pipefail
export RAY_USAGE_STATS_ENABLED=0 # no usage is reported to Ray
exec brainseg cross-validate --on ray "$@"
