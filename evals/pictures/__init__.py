"""Pictures that others made: reading one, folders of them, which belongs to which prompt, sets with statistics."""
