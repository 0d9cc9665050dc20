"""The pipeline: which artefacts exist, what each is made from, what is current, and the jobs.

Here belongs what relates params.yaml to files on disk. The method, the networks and the datasets
never import it.
"""
