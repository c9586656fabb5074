"""Environment variables that a run sets for the processes that it starts."""

# For the stages of a flow: the id of its run.
PIPELINE_RUN = "HEAVISIDE_PIPELINE_RUN"
# The process of that flow, on this machine.
PIPELINE_PROCESS = "HEAVISIDE_PIPELINE_PROCESS"
# For the report of a failed run: a JSON object with the status of each stage that is not done.
STAGES_NOT_DONE = "HEAVISIDE_STAGES_NOT_DONE"
