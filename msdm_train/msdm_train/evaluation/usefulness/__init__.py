"""Does adding synthetic columnar cells improve a segmenter on columnar cells? The paper's experiment.

Field-grouped cross-validation over the fields of train and val together; the split test is never opened. For each
fold and label fraction (a *cell*) a generator is trained on exactly the fields whose labels the segmenters of that
cell may see, and it draws its masks from those fields alone. Everything that an arm touches is read from the
cell's own sub-pack, a file that holds no other field.
"""
