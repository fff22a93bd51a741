/* The first program on a kernel that has to load the drivers of its root: does that, and goes on there. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROOT "/dev/nvme0n1"

static void must(long result, const char *what)
{
	if (result >= 0)
		return;
	perror(what);
	exit(1); /* the kernel panics then */
}

static void load_modules(void)
{
	char path[32];

	for (int number = 0;; number++) {
		snprintf(path, sizeof(path), "/modules/%02d", number);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return;
		must(syscall(SYS_finit_module, fd, "", 0), path);
		close(fd);
	}
}

/* The driver looks for its disks in the background. */
static void await_root(void)
{
	const struct timespec moment = {.tv_nsec = 10000000};

	for (int turns = 0; turns < 6000 && access(ROOT, F_OK) != 0; turns++)
		nanosleep(&moment, NULL);
}

int main(int argc, char **argv)
{
	(void)argc;
	mkdir("/dev", 0755);
	mkdir("/root", 0755);
	must(mount("devtmpfs", "/dev", "devtmpfs", 0, NULL), "devtmpfs");
	load_modules();
	await_root();
	must(mount(ROOT, "/root", "ext4", 0, NULL), ROOT);
	must(chdir("/root"), "/root");
	must(mount(".", "/", NULL, MS_MOVE, NULL), "moving the root");
	must(chroot("."), "chroot");
	must(chdir("/"), "/");
	must(execv("/init", argv), "/init");
}
