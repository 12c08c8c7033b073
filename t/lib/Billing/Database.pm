# A private PostgreSQL cluster for one test: own directory, own unix socket, optionally a free TCP port on loopback.
# Owner: the test that called new(); whatever happens to it, the server ends with it. Never touches a system's server.
package Billing::Database;
use strict;
use warnings;
use Carp qw(croak);
use Cwd qw(abs_path);
use DBI;
use Fcntl qw(:flock);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use JSON::PP qw(encode_json decode_json);
use POSIX qw(WNOHANG);
use Scalar::Util qw(weaken);
use Time::HiRes qw(sleep time);

my $repository = abs_path(dirname(__FILE__) . '/../../..');
my %running;    # pid of the server => object, for END

# new(dir => PATH, fsync => 0|1, tcp => 0|1, settings => {name => value}, env => {name => value}, start => 0|1). Starts the server
# unless start => 0.
sub new {
    my ($class, %opt) = @_;
    my $dir = $opt{dir} ? $opt{dir} : tempdir('billing-pg-XXXXXX', TMPDIR => 1, CLEANUP => 1);
    make_path($dir);
    my $self = bless {
        dir      => abs_path($dir),
        owner    => $$,
        tcp      => $opt{tcp},
        settings => { fsync => $opt{fsync} ? 'on' : 'off', %{ $opt{settings} || {} } },
        env      => $opt{env} || {},
        handles  => [],
    }, $class;
    chmod 0755, $self->{dir};

    # A socket's path has room for 107 bytes.
    $self->{socket} = length($self->{dir}) < 80 ? $self->{dir} : tempdir('billing-pg-XXXXXX', TMPDIR => 1, CLEANUP => 1);
    $self->{data} = "$self->{dir}/data";
    _run('cp', '-a', _template(), $self->{data});
    chown((getpwnam 'postgres')[2, 3], $self->{dir}, $self->{socket}) if $> == 0;
    chmod 0755, $self->{socket};
    $self->start unless defined $opt{start} && !$opt{start};
    return $self;
}

sub dir  { $_[0]{dir} }
sub port { $_[0]{port} }
sub pid  { $_[0]{pid} }

# libpq connection string of the superuser; through TCP where the cluster has it and the caller asks.
sub dsn {
    my ($self, %opt) = @_;
    my $host = $opt{tcp} ? '127.0.0.1' : $self->{socket};
    return "host=$host port=$self->{port} user=" . ($opt{user} || 'postgres') . ' dbname=' . ($opt{dbname} || 'billing');
}

# A new connected handle; errors die. Options: user, dbname, and AutoCommit.
sub dbi {
    my ($self, %opt) = @_;
    (my $dsn = $self->dsn(%opt)) =~ tr/ /;/;
    my $dbh = DBI->connect("dbi:Pg:$dsn", '', '',
        { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => $opt{AutoCommit} // 1, pg_enable_utf8 => 0,
          AutoInactiveDestroy => 1 });
    $dbh->do("SET client_min_messages = 'error'");
    push @{ $self->{handles} }, $dbh unless $opt{detached};
    return $dbh;
}

# migrations/*.sql in order, one transaction a file. For SQL tests; everybody else uses the ngx-billing command.
sub migrate {
    my ($self, %opt) = @_;
    my $dbh = $self->dbi(detached => 1, %opt);
    for my $file (sort glob "$repository/migrations/*.sql") {
        open my $in, '<', $file or croak "$file: $!";
        my $sql = do { local $/; <$in> };
        eval { $dbh->begin_work; $dbh->do($sql); $dbh->commit; 1 } or croak "$file: $@";
    }
    $dbh->disconnect;
    return $self;
}

# Applies a catalog document (a Perl structure); returns the function's answer.
sub apply_catalog {
    my ($self, $document) = @_;
    my $dbh = $self->dbi(detached => 1);
    my $answer = $dbh->selectrow_array('SELECT billing.catalog_apply($1::jsonb)', undef, encode_json($document));
    $dbh->disconnect;
    return decode_json($answer);
}

# Runs statements, returns the rows of the last one as lines with | between columns.
sub psql {
    my ($self, $sql) = @_;
    open my $out, '-|', _bin('psql'), '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $self->dsn, '-c', $sql
        or croak "psql: $!";
    my $text = do { local $/; <$out> } // '';
    close $out or croak "psql failed: $sql";
    chomp $text;
    return $text;
}

# What $work returns. As a host does, it asks again as long as a lock is not to be had within the functions' own lock_timeout.
sub until_unlocked {
    my ($class, $dbh, $work) = @_;
    my ($until, $in_transaction) = (time + 60, !$dbh->{AutoCommit});
    while (1) {
        my $got = eval { $work->() };
        return $got if defined $got || $dbh->state ne '55P03' || time > $until;
        $dbh->rollback, $dbh->begin_work if $in_transaction;
    }
}

# A standby of this server, streaming from it, in a directory of its own.
sub standby {
    my ($self) = @_;
    my $class = ref $self;
    my $standby = $class->new(start => 0, settings => { %{ $self->{settings} } }, env => $self->{env});
    remove_tree($standby->{data});
    _run(_as_postgres(), _bin('pg_basebackup'), '-D', $standby->{data}, '-R', '-c', 'fast', '-X', 'stream', '--no-sync', '-h', $self->{socket},
        '-p', $self->{port}, '-U', 'postgres');
    return $standby->start;
}

# The standby is the primary from now on, where the lost one was: its clients find it without being told.
sub take_over {
    my ($self, $lost) = @_;
    $self->stop;
    $self->{socket} = $lost->{socket};
    $self->{port} = $lost->{port};
    $self->start;
    $self->psql('SELECT pg_promote()');
    return $self;
}

sub start {
    my ($self) = @_;
    croak 'already running' if $self->{pid};
    for my $try (1 .. 5) {
        $self->{port} ||= $self->{tcp} ? _free_port() : 5432;
        return $self if $self->_launch;
        croak "postgres did not start:\n" . $self->log if !$self->{tcp} || $self->log !~ /could not bind/;
        delete $self->{port};    # somebody was faster: take another
    }
    croak "postgres found no port:\n" . $self->log;
}

# mode: smart, fast (default) or immediate, as pg_ctl has them.
sub stop {
    my ($self, $mode) = @_;
    my $pid = $self->{pid} or return;
    $self->resume if $self->{paused};
    $_->{Active} && $_->disconnect for @{ $self->{handles} };
    $self->{handles} = [];
    kill { smart => 'TERM', fast => 'INT', immediate => 'QUIT' }->{ $mode || 'fast' }, $pid;
    $self->_gone(20) or $self->kill9;
    return $self;
}

# The whole server at once, as a power cut would.
sub kill9 {
    my ($self) = @_;
    my $pid = $self->{pid} or return;
    kill 'STOP', $pid;    # so that it starts no more children
    my @all = ($pid, _children($pid));
    kill 'KILL', @all;
    $self->_gone(20) or croak "server $pid survived SIGKILL";
    my $until = time + 10;
    while (grep { _alive($_) } @all) {
        croak 'children of the server survived SIGKILL' if time > $until;
        sleep 0.01;
    }
    return $self;
}

# A server that answers nothing, while the kernel goes on accepting connections for it.
sub pause {
    my ($self) = @_;
    kill 'STOP', $self->{pid};
    kill 'STOP', _children($self->{pid});
    $self->{paused} = 1;
    return $self;
}

sub resume {
    my ($self) = @_;
    kill 'CONT', _children($self->{pid}), $self->{pid};
    $self->{paused} = 0;
    return $self;
}

sub log {
    my ($self) = @_;
    open my $in, '<', "$self->{dir}/log" or return '';
    local $/;
    return <$in> // '';
}

sub DESTROY {
    my ($self) = @_;
    return if $self->{owner} != $$ || !$self->{pid};    # a forked child does not own the server
    local ($?, $@, $!);
    $_->{Active} && $_->disconnect for grep { $_ } @{ $self->{handles} };
    $self->{handles} = [];
    eval { $self->kill9; $self->_release_memory };
}

END {
    local $?;
    $_->DESTROY for grep { $_ } values %running;
}

# ---------------------------------------------------------------- inside

sub _bin { return (sort glob '/usr/lib/postgresql/*/bin')[-1] . "/$_[0]" }

# PostgreSQL refuses root. The server dies with this process even if that is killed (pdeathsig).
sub _as_postgres {
    my @death = @_;
    return ('setpriv', ($> == 0 ? qw(--reuid=postgres --regid=postgres --init-groups) : ()), @death, '--');
}

sub _run {
    system(@_) == 0 or croak "failed: @_";
}

sub _build {
    my $dir = $ENV{BILLING_BUILD} || "$repository/build";
    make_path($dir);
    return $dir;
}

# initdb takes 0.7 s, a copy a fraction of it: done once for each version, under a lock.
sub _template {
    my ($version) = _bin('postgres') =~ m{postgresql/([^/]+)/};
    my $template = _build() . "/pg-template-$version-4";
    open my $lock, '>', "$template.lock" or croak "$template.lock: $!";
    flock $lock, LOCK_EX or croak "lock: $!";
    return $template if -e "$template/PG_VERSION";

    my $work = tempdir('billing-pg-XXXXXX', TMPDIR => 1, CLEANUP => 1);
    chown((getpwnam 'postgres')[2, 3], $work) if $> == 0;
    my @as = _as_postgres();
    my $quiet = "$work/initdb.log";
    system("@as " . _bin('initdb') . " -D $work/data -U postgres -A trust --no-sync --no-locale -E UTF8 --wal-segsize=4 >$quiet 2>&1") == 0
        or croak 'initdb failed: ' . `cat $quiet`;
    system("echo 'CREATE DATABASE billing' | @as " . _bin('postgres') . " --single -F -D $work/data postgres >$quiet 2>&1") == 0
        or croak 'create database failed: ' . `cat $quiet`;
    remove_tree("$template.new");
    _run('cp', '-a', "$work/data", "$template.new");
    rename "$template.new", $template or croak "rename: $!";
    return $template;
}

sub _free_port {
    my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => 0) or croak "no free port: $!";
    return $s->sockport;
}

sub _launch {
    my ($self) = @_;
    my %set = (
        listen_addresses => $self->{tcp} ? '127.0.0.1' : '', unix_socket_directories => $self->{socket},
        port => $self->{port}, max_connections => 100, shared_buffers => '32MB', logging_collector => 'off',
        max_wal_size => '256MB', %{ $self->{settings} });
    my $pid = fork // croak "fork: $!";
    if (!$pid) {
        open STDOUT, '>>', "$self->{dir}/log";
        open STDERR, '>&', \*STDOUT;
        open STDIN, '<', '/dev/null';
        setpgrp;    # a Ctrl-C at the terminal is for the test
        my @env = map { "$_=$self->{env}{$_}" } keys %{ $self->{env} };    # for the server alone: libfaketime wants one user
        my @command = (_as_postgres('--pdeathsig', 'QUIT'), @env ? ('env', @env) : (), _bin('postgres'), '-D', $self->{data},
            map { ('-c', "$_=$set{$_}") } sort keys %set);
        exec @command or POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    $running{$pid} = $self;
    weaken($running{$pid});
    my $until = time + 60;
    while (time < $until) {
        my $dbh = eval { $self->dbi(detached => 1) };
        if ($dbh) { $dbh->disconnect; return 1 }
        return 0 if $self->_gone(0);
        sleep 0.02;
    }
    $self->kill9;
    return 0;
}

# A server that is killed leaves its segment of shared memory to the one that is started after it; here none will be, and a machine has
# few thousand of them. Its number is in the seventh line of the server's own file.
sub _release_memory {
    my ($self) = @_;
    open my $in, '<', "$self->{data}/postmaster.pid" or return;
    my @lines = <$in>;
    my ($segment) = ($lines[6] // '') =~ /^\s*\d+\s+(\d+)/ or return;
    shmctl $segment, 0, 0;    # IPC_RMID
    return;
}

# True once the server is reaped.
sub _gone {
    my ($self, $seconds) = @_;
    my $until = time + $seconds;
    while (1) {
        my $pid = $self->{pid};
        if (waitpid($pid, WNOHANG) != 0) {
            delete $running{$pid};
            $self->{pid} = undef;
            $self->{paused} = 0;
            return 1;
        }
        return 0 if time >= $until;
        sleep 0.01;
    }
}

sub _children {
    my ($parent) = @_;
    my @found;
    for my $stat (glob '/proc/[0-9]*/stat') {
        open my $in, '<', $stat or next;
        my $line = <$in> // next;
        push @found, $1 if $line =~ /^(\d+) \(.*\) \S (\d+)/ && $2 == $parent;
    }
    return @found;
}

# A zombie that nobody reaps is gone too.
sub _alive {
    my ($pid) = @_;
    open my $in, '<', "/proc/$pid/stat" or return 0;
    my $line = <$in> // return 0;
    return $line !~ /\) [ZX] /;
}

1;
