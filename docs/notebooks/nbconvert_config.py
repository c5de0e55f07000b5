"""Settings of `jupyter nbconvert --execute --inplace *.ipynb`, which runs the notebooks of this folder.

Files then hold no times and no versions: a second run changes outputs only.
"""

c = get_config()  # noqa: F821
c.NbConvertApp.export_format = "notebook"
c.ExecutePreprocessor.timeout = 60
c.ExecutePreprocessor.record_timing = False
c.ClearMetadataPreprocessor.enabled = True
c.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {("kernelspec",), ("language_info", "name")}
