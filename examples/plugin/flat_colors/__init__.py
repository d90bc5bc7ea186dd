"""Can a text-to-image model fill a picture with one colour? An example plug-in of blip3o-eval."""
