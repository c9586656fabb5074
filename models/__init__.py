"""The networks: one file a family, found by its name.

A family's file defines `build(inputs, name, ...) -> keras.Model`: `inputs` maps the name of each input to the shape of
one row, the other arguments are `models.M.build` of params.yaml. The model comes back uncompiled. Nothing here reads
files, sets seeds or logs. What the families share is in `models/common/`.
"""
