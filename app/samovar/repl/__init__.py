"""Line mode: chats at a plain prompt, for slow lines, small terminals and screen readers."""
