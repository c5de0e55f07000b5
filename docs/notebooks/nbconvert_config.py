"""Settings for running the notebooks of this folder.

jupyter nbconvert --config=docs/notebooks/nbconvert_config.py --execute --inplace docs/notebooks/*.ipynb

The files then contain no times and no versions, so a second run changes only outputs that differ.
"""

c = get_config()  # noqa: F821
c.NbConvertApp.export_format = "notebook"
c.ExecutePreprocessor.timeout = 60
c.ExecutePreprocessor.record_timing = False
c.ClearMetadataPreprocessor.enabled = True
c.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {("kernelspec",), ("language_info", "name")}
