"""Environment variables by which the processes of one run know each other."""

# Set for the stages that a flow runs: the id of its run.
PIPELINE_RUN = "HEAVISIDE_PIPELINE_RUN"
# And its process, on this machine.
PIPELINE_PROCESS = "HEAVISIDE_PIPELINE_PROCESS"
# Set for the report of a run in which stages failed: a JSON object, the status of each stage that was not done.
STAGES_NOT_DONE = "HEAVISIDE_STAGES_NOT_DONE"
