/* Loaded into a process with LD_PRELOAD: counts the calls that make things durable below CRASH_ROOT, ends the process at
 * the CRASH_AT-th of them, before or after it took effect (CRASH_WHEN), and writes down in CRASH_SHADOW what was durable
 * after each: `events` has a line per sync, `<n>.img` is the content of the file that the n-th line is about.
 *
 *     S n inode path            a file was synced; n.img is what it held then
 *     D path|name:inode|...     a directory was synced; these were its names, those of directories with a slash behind
 *     G inode                   no name leads to that file any more; its number may be used again
 *
 * Renames and removals count as calls too; whether they lasted is written down by the next sync of their directory.
 *
 * A process that was forked counts on with its parent, and the end is that of both: they share what is counted, and
 * their process group, which is theirs alone. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    pthread_mutex_t lock;
    long calls, images;
} *shared;

__attribute__((constructor)) static void share(void) {
    pthread_mutexattr_t how;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) abort();
    pthread_mutexattr_init(&how);
    pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&shared->lock, &how);
}

static int below_root(const char *path) {
    const char *root = getenv("CRASH_ROOT");
    return root && strncmp(path, root, strlen(root)) == 0;
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below_root(path);
}

static void end_if(const char *when, long number) {
    const char *at = getenv("CRASH_AT"), *wanted = getenv("CRASH_WHEN");
    if (at && wanted && atol(at) == number && strcmp(wanted, when) == 0) {
        kill(0, SIGKILL);
        for (;;) pause();
    }
}

static void copy_file(const char *from, long number) {
    char to[PATH_MAX], buffer[1 << 16];
    snprintf(to, sizeof to, "%s/%ld.img", getenv("CRASH_SHADOW"), number);
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    ssize_t got;
    while ((got = read(in, buffer, sizeof buffer)) > 0)
        if (write(out, buffer, got) != got) abort();
    close(in);
    close(out);
}

static void note(int fd, const char *path) {
    char name[PATH_MAX];
    struct stat about;
    snprintf(name, sizeof name, "%s/events", getenv("CRASH_SHADOW"));
    FILE *events = fopen(name, "a");
    if (!events || fstat(fd, &about)) abort();
    if (S_ISDIR(about.st_mode)) {
        fprintf(events, "D %s", path);
        DIR *directory = opendir(path);
        for (struct dirent *each; (each = readdir(directory));) {
            int below = each->d_type == DT_DIR && strcmp(each->d_name, ".") && strcmp(each->d_name, "..");
            if (below || each->d_type == DT_REG)
                fprintf(events, "|%s%s:%lu", each->d_name, below ? "/" : "", (unsigned long)each->d_ino);
        }
        closedir(directory);
        fprintf(events, "\n");
    } else {
        copy_file(path, ++shared->images);
        fprintf(events, "S %ld %lu %s\n", shared->images, (unsigned long)about.st_ino, path);
    }
    fclose(events);
}

static int synced(int fd, const char *name) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    char path[PATH_MAX];
    if (!path_of(fd, path)) return real(fd);
    pthread_mutex_lock(&shared->lock);
    long number = ++shared->calls;
    end_if("before", number);
    int result = real(fd);
    if (result == 0) note(fd, path);
    end_if("after", number);
    pthread_mutex_unlock(&shared->lock);
    return result;
}

int fsync(int fd) { return synced(fd, "fsync"); }
int fdatasync(int fd) { return synced(fd, "fdatasync"); }

static void gone(const char *path) {
    char name[PATH_MAX];
    struct stat about;
    if (stat(path, &about) || about.st_nlink > 1) return;
    snprintf(name, sizeof name, "%s/events", getenv("CRASH_SHADOW"));
    FILE *events = fopen(name, "a");
    if (!events) abort();
    fprintf(events, "G %lu\n", (unsigned long)about.st_ino);
    fclose(events);
}

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    if (!below_root(to)) return real(from, to);
    pthread_mutex_lock(&shared->lock);
    long number = ++shared->calls;
    end_if("before", number);
    gone(to);
    int result = real(from, to);
    end_if("after", number);
    pthread_mutex_unlock(&shared->lock);
    return result;
}

int unlink(const char *path) {
    int (*real)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
    if (!below_root(path)) return real(path);
    pthread_mutex_lock(&shared->lock);
    long number = ++shared->calls;
    end_if("before", number);
    gone(path);
    int result = real(path);
    end_if("after", number);
    pthread_mutex_unlock(&shared->lock);
    return result;
}

/* How many there were, for whoever asks after a run to its end. */
__attribute__((destructor)) static void tell(void) {
    const char *shadow = getenv("CRASH_SHADOW");
    if (!shadow || !shared->calls) return;
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s/calls", shadow);
    FILE *file = fopen(name, "w");
    if (file) { fprintf(file, "%ld\n", shared->calls); fclose(file); }
}
