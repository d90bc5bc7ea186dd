"""mmdet's Mask2Former weights in the layout of transformers."""
