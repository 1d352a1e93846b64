"""What a training set teaches: everything in which classifying and generating differ, one file a task."""
