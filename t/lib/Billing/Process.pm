# Processes of a test: started with a log file, awaited by facts, killed and paused with all their children, and gone when the
# test ends, however it ends. Also the facts themselves (wait_for), free ports and temporary directories.
package Billing::Process;
use v5.36;
use Cwd ();
use Exporter 'import';
use Fcntl qw(:flock);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use File::Temp ();
use IO::Socket::INET ();
use POSIX ();
use Time::HiRes ();

our @EXPORT_OK = qw(wait_for free_port new_directory root build sanitized patience slurp);

my $owner = $$;
my (%running, %port_locks, @directories);

# An ordinary user's path lacks the folders where Debian puts servers.
$ENV{PATH} .= ':/usr/local/sbin:/usr/sbin:/sbin';

# The repository, and what was built of it.
my $root = dirname(Cwd::abs_path(__FILE__)) =~ s{/t/lib/Billing$}{}r;
sub root() { $root }
sub build() { $ENV{BILLING_BUILD} // "$root/build" }

# The run with the module under ASan and UBSan (script/test's second round).
sub sanitized() { $ENV{BILLING_SANITIZE} ? 1 : 0 }

# Deadlines are for broken code; instrumented code is merely slow.
sub patience() { sanitized() ? 4 : 1 }

sub slurp($file) {
    open my $in, '<:raw', $file or return '';
    local $/;
    return scalar(<$in>) // '';
}

# Polls until $fact->() is true and returns its value; dies naming $what when $seconds have passed.
sub wait_for($fact, $seconds, $what) {
    my $deadline = Time::HiRes::time() + $seconds * patience();
    my $pause = 0.002;
    while (1) {
        my $value = $fact->();
        return $value if $value;
        die "not within $seconds s: $what\n" if Time::HiRes::time() > $deadline;
        select(undef, undef, undef, $pause);
        $pause *= 1.5 if $pause < 0.03;
    }
}

# A loopback port below the range of outgoing connections, ours until this process ends: a lock file keeps other tests away.
sub free_port() {
    my $folder = ($ENV{TMPDIR} // '/tmp') . "/ngx-billing-ports-$<";
    make_path($folder);
    for (1 .. 200) {
        my $port = 20000 + int rand 12000;
        next if $port_locks{$port};
        open my $lock, '>>', "$folder/$port" or die "$folder/$port: $!\n";
        next if !flock $lock, LOCK_EX | LOCK_NB;
        my $probe = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 1, ReuseAddr => 1) or next;
        $port_locks{$port} = $lock;
        return $port;
    }
    die "no free port between 20000 and 32000\n";
}

# A directory that other users may enter (workers and PostgreSQL may run as another user), with a name short enough for
# unix sockets in it. Removed at the end unless BILLING_KEEP is set.
sub new_directory() {
    my $directory = File::Temp::tempdir('nb-XXXXXX', DIR => $ENV{TMPDIR} // '/tmp', CLEANUP => 0);
    chmod 0755, $directory;
    push @directories, $directory;
    return $directory;
}

# name => for messages, command => [program, arguments], log => file for its output;
# optional: user => to run as (only as root), env => {additions}, directory => to start in, death_signal => when we die (TERM).
sub start($class, %option) {
    my $self = bless {%option, paused => 0}, $class;
    my @command = ('setpriv', '--pdeathsig', $option{death_signal} // 'TERM');
    push @command, "--reuid=$option{user}", "--regid=$option{user}", '--init-groups' if $option{user};
    push @command, '--', $option{command}->@*;
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', $option{log} or POSIX::_exit(126);
        open STDERR, '>&', \*STDOUT;
        setpgrp 0, 0;
        @ENV{keys $option{env}->%*} = values $option{env}->%* if $option{env};
        chdir $option{directory} if $option{directory};
        { exec {$command[0]} @command }
        print STDERR "$command[0]: $!\n";
        POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    $running{$pid} = $self;
    return $self;
}

# A process that runs already and is nobody's child of ours: its end can be seen, its exit status cannot (it counts as 0).
sub adopt($class, %option) {
    my $self = bless {%option, paused => 0, adopted => 1}, $class;
    $running{$self->{pid}} = $self;
    return $self;
}

sub pid($self) { $self->{pid} }
sub log_text($self) { slurp($self->{log}) }

sub alive($self) {
    $self->reap;
    return !defined $self->{status};
}

# The wait status ($?) once it has ended, undef before.
sub reap($self) {
    return $self->{status} if defined $self->{status};
    local ($?, $!);
    my $pid = $self->{adopted} ? process_alive($self->{pid}) ? 0 : -1 : waitpid $self->{pid}, POSIX::WNOHANG();
    if ($pid == $self->{pid} || $pid == -1) {
        $self->{status} = $self->{adopted} ? 0 : $pid == -1 ? -1 : $?;
        delete $running{$self->{pid}};
    }
    return $self->{status};
}

# Waits for a fact while the process lives; dies with its log when it ends first.
sub await($self, $fact, $seconds, $what) {
    return wait_for(sub {
        my $value = $fact->();
        return $value if $value;
        die "$self->{name} ended before: $what\n" . $self->log_text if !$self->alive;
        return 0;
    }, $seconds, $what);
}

sub signal($self, $signal) {
    return $self->alive ? kill($signal, $self->{pid}) : 0;
}

# The wait status; dies when it has not ended in time.
sub wait_exit($self, $seconds) {
    wait_for(sub { !$self->alive }, $seconds, "$self->{name} (pid $self->{pid}) ends");
    return $self->{status};
}

# Asks it to end; after $seconds it is killed with its children. Returns the wait status.
sub stop($self, $signal = 'TERM', $seconds = 10) {
    return $self->{status} if !$self->alive;
    $self->resume if $self->{paused};
    kill $signal, $self->{pid};
    eval { $self->wait_exit($seconds); 1 } or $self->kill9;
    return $self->{status};
}

sub kill9($self) {
    return if !$self->alive;
    kill 'STOP', $self->{pid};    # no more children while we list them
    my @all = ($self->{pid}, descendants($self->{pid}));
    kill 'KILL', @all;
    $self->wait_exit(10);
    wait_for(sub { !grep { process_alive($_) } @all }, 10, "$self->{name} and its children are gone");
    return;
}

sub pause($self) {
    my %stopped;
    while (my @new = grep { !$stopped{$_} } $self->{pid}, descendants($self->{pid})) {
        kill 'STOP', @new;
        @stopped{@new} = (1) x @new;
    }
    wait_for(sub { !grep { process_state($_) !~ /[TtZX]/ } keys %stopped }, 5, "$self->{name} stands still");
    $self->{paused} = 1;
    return;
}

sub resume($self) {
    kill 'CONT', descendants($self->{pid}), $self->{pid};
    $self->{paused} = 0;
    return;
}

# --- the process table ---

sub stat_of($pid) {
    my $text = slurp("/proc/$pid/stat");
    return $text =~ /\) (\S) (\d+)/ ? ($1, $2) : ();
}

sub process_state($pid) { (stat_of($pid))[0] // 'X' }
sub process_alive($pid) { process_state($pid) !~ /[ZX]/ }

sub children($parent) {
    opendir my $proc, '/proc' or die "/proc: $!\n";
    my @pids = grep { /^\d+$/ } readdir $proc;
    my @children = sort { $a <=> $b } grep { ((stat_of($_))[1] // -1) == $parent } @pids;
    return @children;
}

sub descendants($parent) {
    my @children = children($parent);
    return map { ($_, descendants($_)) } @children;
}

# --- the end, however it comes ---

$SIG{$_} //= sub { exit 130 } for qw(INT TERM HUP);

END {
    if ($$ == $owner) {
        local ($?, $!, $@);
        my @left = values %running;
        for my $process (@left) {
            $process->resume if $process->{paused};
            $process->signal('TERM');
        }
        $_->stop('TERM', 5) for @left;
        remove_tree($_, {safe => 0, error => \my $ignored}) for $ENV{BILLING_KEEP} ? () : @directories;
        say STDERR "# kept: @directories" if $ENV{BILLING_KEEP} && @directories;
    }
}

1;
