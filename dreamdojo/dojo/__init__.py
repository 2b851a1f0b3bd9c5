"""The dojo: a MuJoCo tabletop under a head camera, with a human arm or a robot arm; ground truth for everything."""

from dreamdojo.dojo.gl import choose_backend, require_packages

require_packages()
choose_backend()
