"""Objects that survive forks, threads and interrupts: closing, undoing, taking turns, threads, pools."""
