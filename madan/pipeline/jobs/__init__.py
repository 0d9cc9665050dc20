"""One module for each rule of the workflow; its function has the roles of the rule as arguments.

Here belongs which images, weights and networks a job puts together. All of it is part of the code
digest of what the job makes. Losses, networks and loops never belong here.
"""
