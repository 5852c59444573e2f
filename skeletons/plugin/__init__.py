"""Components for stav2a."""
