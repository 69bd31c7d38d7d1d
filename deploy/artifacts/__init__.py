"""What flows from stage to stage; each kind saves and loads itself."""
