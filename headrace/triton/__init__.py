"""Reading Triton's model repositories: layout, config.pbtxt, and what of it Headrace can carry over."""
