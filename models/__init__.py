"""The networks: one file per family, found by its name.

The file of a family defines `build(inputs, name, ...) -> keras.Model`. `inputs` maps the name of each input to the
shape of a row; the other arguments are `models.M.build` of params.yaml. The model is not compiled. The families read no
files, set no seeds and log nothing. What they share is in `models/common/`.
"""
